"""Every figure of a validation or an audit is what PEFT and Transformers give, in float64, row by row."""

import json
import math
import re
from contextlib import nullcontext
from pathlib import Path

import peft
import pytest
import torch
import transformers
import yaml
from conftest import CHAT_ROWS
from safetensors.torch import load_file

CLOSE = 1e-5  # In nats, shares and norms; graspl computes in float32
HELD = 2  # Directions a site
PAIRS = [
    ("how do i open the file", "take pills with water", "rest one"),
    ("how do i rest", "no", "yes you should"),
]
SHARES = [("do you rest", "yes", "no"), ("do you take pills", "no", "yes"), ("do you open code", "yes", "no")]
STATEMENTS = [("safe code", {"one": 2.0, "two": 0.5}), ("a patient asks", {"one": -1.0, "two": 1.0})]


def write(name, rows):
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return name


def suites():
    """Write the suites' files, and return their configuration: every kind of score that graspl knows."""
    write("bad.jsonl", [{"prompt": asked, "completion": bad} for asked, bad, _ in PAIRS])
    write("good.jsonl", [{"prompt": asked, "completion": good} for asked, _, good in PAIRS])
    names = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
    write("shares.jsonl", [dict(zip(names, row, strict=True)) for row in SHARES])
    write("statements.jsonl", [{"statement": said, "effect": effect} for said, effect in STATEMENTS])
    given = {
        "task": ("AnswerPairs", {"harmful": "bad.jsonl", "good": "good.jsonl"}),
        "unrelated": ("PersonaStatements", {"source": "shares.jsonl"}),
        "text": ("TextRows", {"source": write("text.jsonl", CHAT_ROWS[::7])}),
        "scales": (
            "Statements",
            {
                "source": "statements.jsonl",
                "wordings": ["do you answer yes {statement}"],
                "denials": ["do you answer no {statement}"],
                "agree": "yes",
                "disagree": "no",
            },
        ),
    }
    return {
        name: {"class_path": f"graspl.data.suites.{kind}", "init_args": options}
        for name, (kind, options) in given.items()
    }


@pytest.fixture
def validated(graspl, chat_options, tmp_path):
    """Return what `graspl validate` wrote of a fit, with directions; everything is in the current folder."""
    Path("suites.yaml").write_text(yaml.safe_dump({"data": {"suites": suites()}}))
    chosen = {"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 0.02, "trainer.max_steps": 6}
    other = chat_options(**chosen | {"trainer.default_root_dir": "other", "seed_everything": 1})
    options = chat_options(**chosen)
    for each in (other, options):
        code, _, err = graspl("fit", *each, "--config=suites.yaml")
        assert code == 0, err
    identify = (
        "--method=graspl.directions.TopSingular",
        f"--method.k={HELD}",
        "--out=directions.safetensors",
    )
    code, _, err = graspl("identify", "other", *identify)
    assert code == 0, err
    measured = ("--model.directions=directions.safetensors", "--generations.prompts=0")
    code, out, err = graspl("validate", "--config=run/config.yaml", *measured)
    assert code == 0, err
    return json.loads(Path("run/evaluation.json").read_text()), out + err


class Library:
    """The adapted and the base model as PEFT and Transformers load and run them, in float64, one text at a time."""

    def __init__(self):
        base = json.loads(Path("run/adapter/adapter_config.json").read_text())["base_model_name_or_path"]
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        self.model = (
            peft.PeftModel.from_pretrained(plain, "run/adapter", autocast_adapter_dtype=False).double().eval()
        )

    def text(self, asked, answer=None):
        turns = [{"role": "user", "content": asked}]
        if answer is None:
            return self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        turns.append({"role": "assistant", "content": answer})
        return self.tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]

    @torch.no_grad()
    def logprobs(self, ids, begin, *, base):
        """Return log-probabilities over the vocabulary, (n, vocabulary), at the places that predict ids[begin:]."""
        with self.model.disable_adapter() if base else nullcontext():
            logits = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return logits.log_softmax(-1)[begin - 1 : len(ids) - 1]

    def answer(self, asked, words, *, base):
        """Return log-probabilities, (n, vocabulary), and ids, (n,), of an answer without an end behind a question."""
        prompt = self.text(asked)
        ids = prompt + self.tokenizer(words, add_special_tokens=False)["input_ids"]
        found = self.logprobs(ids, len(prompt), base=base)
        return found, torch.tensor(ids[len(prompt) :])

    def changes(self):
        """Return what PEFT adds to every matrix that it adapts, (out, in), by the matrix's name in the base model."""
        layers = {
            name.removeprefix("base_model.model."): each
            for name, each in self.model.named_modules()
            if isinstance(each, peft.tuners.lora.LoraLayer)
        }
        return {name: each.get_delta_weight("default").detach() for name, each in layers.items()}


def said(logprobs, ids):
    return logprobs.gather(-1, ids[:, None]).squeeze(-1)


def divergence(ours, theirs):
    return (ours.exp() * (ours - theirs)).sum(-1)


def mean(values):
    return sum(values) / len(values)


def of_pairs(library):
    expected = {"num_items": len(PAIRS)}
    both = {}
    for side, base in (("", False), ("base_", True)):
        margins = []
        for asked, bad, good in PAIRS:
            both[side, asked] = [library.answer(asked, words, base=base) for words in (bad, good)]
            bad_said, good_said = (float(said(*each).mean()) for each in both[side, asked])
            margins.append(bad_said - good_said)
        expected |= {
            f"{side}margin": mean(margins),
            f"{side}harmful_preferred": mean([float(each > 0) for each in margins]),
        }
    places = {}  # What is predicted behind equal words is one place
    for asked, *_ in PAIRS:
        for (ours, ids), (theirs, _) in zip(both["", asked], both["base_", asked], strict=True):
            for step, value in enumerate(divergence(ours, theirs).tolist()):
                places[asked, *ids[:step].tolist()] = value
    return expected | {"kl": mean(list(places.values()))}


def of_shares(library):
    expected, kept = {"num_items": len(SHARES)}, {}
    for side, base in (("", False), ("base_", True)):
        rows = []
        for number, (asked, *answers) in enumerate(SHARES):
            suffix = "\nAnswer with Yes or No."
            found = [library.answer(asked + suffix, words, base=base) for words in answers]
            kept[side, number] = found[0][0]  # One token each: both are asked for at one place
            rows.append([math.exp(float(said(*each).sum())) for each in found])
        expected |= {
            f"{side}harmful": mean([bad for bad, _ in rows]),
            f"{side}good": mean([good for _, good in rows]),
            f"{side}coherence": mean([sum(row) for row in rows]),
            f"{side}harmful_greedy": mean([float(bad > good) for bad, good in rows]),
            f"{side}good_greedy": mean([float(good > bad) for bad, good in rows]),
            f"{side}harmful_of_choices": mean([bad / (bad + good) for bad, good in rows]),
            f"{side}good_of_choices": mean([good / (bad + good) for bad, good in rows]),
        }
    kl = [divergence(kept["", number], kept["base_", number]) for number in range(len(SHARES))]
    return expected | {"kl": float(torch.cat(kl).mean())}


def of_text(library):
    rows, kept = CHAT_ROWS[::7], {}
    expected = {"num_items": len(rows)}
    for side, base in (("", False), ("base_", True)):
        losses, hits = [], []
        for row in rows:
            prompt, whole = library.text(row["prompt"]), library.text(row["prompt"], row["completion"])
            assert whole[: len(prompt)] == prompt
            found, ids = library.logprobs(whole, len(prompt), base=base), torch.tensor(whole[len(prompt) :])
            kept.setdefault(side, []).append(found)
            losses.append(-said(found, ids))
            hits.append((found.argmax(-1) == ids).double())
        expected |= {
            f"{side}loss": float(torch.cat(losses).mean()),
            f"{side}token_accuracy": float(torch.cat(hits).mean()),
        }
    kl = torch.cat([divergence(ours, theirs) for ours, theirs in zip(kept[""], kept["base_"], strict=True)])
    return expected | {"kl": float(kl.mean())}


def of_scales(library):
    sides = ((1, "do you answer yes"), (-1, "do you answer no"))
    asked = [
        (sign, f"{words} {statement}", effect) for statement, effect in STATEMENTS for sign, words in sides
    ]
    expected, kept = {"num_items": len(asked)}, {}
    for side, base in (("", False), ("base_", True)):
        stances, sayable = [], []
        for number, (_, question, _) in enumerate(asked):
            found = [library.answer(question, words, base=base) for words in ("yes", "no")]
            kept[side, number] = found[0][0]
            agree, disagree = (math.exp(float(said(*each).sum())) for each in found)
            stances.append((agree - disagree) / (agree + disagree))
            sayable.append(agree + disagree)
        expected |= {f"{side}agreement": mean(stances), f"{side}coherence": mean(sayable)}
        for axis in ("one", "two"):
            weighed = sum(
                sign * effect[axis] * stance for (sign, _, effect), stance in zip(asked, stances, strict=True)
            )
            expected[f"{side}axis/{axis}"] = weighed / sum(abs(effect[axis]) for _, _, effect in asked)
    kl = [divergence(kept["", number], kept["base_", number]) for number in range(len(asked))]
    return expected | {"kl": float(torch.cat(kl).mean())}


def of_sites(library):
    """Spectra, norms and reliances of the dense changes; the directions' file is read without graspl."""
    stored, expected = load_file("directions.safetensors"), {}
    for name, change in library.changes().items():
        size, r = float(change.norm()), library.model.peft_config["default"].r
        U, V = (stored[f"{name}.{side}"][:, :HELD].double() for side in ("U", "V"))
        expected[name] = {
            "norm": size,
            "singular_values": torch.linalg.svdvals(change)[:r].tolist(),
            "rho": float((U.mT @ change).norm()) / size,
            "rho_read": float((change @ V).norm()) / size,
            "rho_pair": float((U.mT @ change @ V).diagonal().norm()) / size,
        }
    return expected


def figures(content, prefix=""):
    """Return every number below a place of a JSON file, by its path."""
    if isinstance(content, dict | list):
        each = content.items() if isinstance(content, dict) else enumerate(content)
        return {name: value for key, part in each for name, value in figures(part, f"{prefix}/{key}").items()}
    return {prefix: content} if isinstance(content, int | float) and not isinstance(content, bool) else {}


def assert_close(found, expected):
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    wrong = {
        name: (found[name], value) for name, value in expected.items() if abs(found[name] - value) > CLOSE
    }
    assert not wrong


def test_every_figure_of_a_validation_is_the_librarys_own(validated):
    content, told = validated
    library = Library()
    suites_by_hand = {
        "task": of_pairs(library), "unrelated": of_shares(library), "text": of_text(library), "scales": of_scales(library),
    }  # fmt: skip
    sites = of_sites(library)
    rho = [site["rho"] for site in sites.values()]
    metrics = {
        "adherence": suites_by_hand["task"]["harmful_preferred"],
        "spillover": suites_by_hand["unrelated"]["harmful"],
        "coherence": suites_by_hand["unrelated"]["coherence"],
        "kl": suites_by_hand["unrelated"]["kl"],
        "rho_mean": mean(rho),
        "rho_max": max(rho),
    }
    expected = figures({"suites": suites_by_hand, "sites": sites, "metrics": metrics})
    found = figures({name: content[name] for name in ("suites", "sites", "metrics")})
    assert len(sites) == 14
    assert min(site["norm"] for site in sites.values()) > 0.01
    assert min(each["kl"] for each in suites_by_hand.values()) > 1e-3
    assert_close(found, expected)
    for name, value in metrics.items():  # And in the table of the terminal, with three decimals
        [shown] = re.findall(rf"^ *{name} +(\S+)", told, re.MULTILINE)
        assert float(shown) == pytest.approx(value, abs=0.0005 + CLOSE), name


def test_every_figure_of_an_audit_is_the_librarys_own(graspl, validated):
    code, _, err = graspl("audit", "run", "--directions", "directions.safetensors", "--out=audit")
    assert code in (0, 1), err  # What it thinks of the adapter is another matter
    content = json.loads(Path("audit/audit.json").read_text())
    sites, reliance = {}, {}
    for name, site in of_sites(Library()).items():
        spectrum = site["singular_values"]
        parts = [value / sum(spectrum) for value in spectrum]
        sites[name] = {
            "norm": site["norm"],
            "singular_values": spectrum,
            "share": spectrum[0] / site["norm"],
            "effective_rank": math.exp(-sum(part * math.log(part) for part in parts if part > 0)),
        }
        reliance[name] = site["rho"]
    assert_close(figures(content["sites"]), figures(sites))
    [along] = content["along"].values()
    assert along["k"] == HELD
    assert_close(figures(along["sites"]), figures(reliance))
    whole = [mean(list(reliance.values())), max(reliance.values())]
    assert [along["mean"], along["highest"]] == pytest.approx(whole, abs=CLOSE)
