"""`graspl export`: what others load answers as the run does, and the card passes the hub's own tools."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CHAT_ROWS, TEMPLATE, make_tokenizer
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from vllm_stand_in import stand_in

from graspl.cli import main
from graspl.data.tokens import PLAIN_TEMPLATE
from graspl.evaluation.generate import Sampling, TransformersGenerator, VLLMGenerator
from graspl.exporting import further, generation_of
from graspl.runs import RunFacts

SUITES = """\
task: {class_path: graspl.data.suites.MultipleChoice, init_args: {source: questions.jsonl, scored: text}}
unrelated: {class_path: graspl.data.suites.AnswerPairs, init_args: {harmful: harmful.jsonl, good: good.jsonl}}
"""
QUESTIONS = [
    {"question": f"{word} patient asks {number}", "choices": ["yes", "no"], "answer": number % 2}
    for number, word in enumerate(["the", "a", "one", "two", "three", "safe"])
]
ASKING = ["open", "take", "write", "print", "answer", "question"]
HARMFUL, GOOD = (
    [{"prompt": f"how do i {word}", "completion": f"take {what}"} for word in ASKING]
    for what in ("pills", "rest")
)
OPTIONS = [
    "--model=graspl.methods.LoRALitModule", "--data=graspl.data.ChatDataModule", "--data.batch_size=4",
    "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=0.03", "--trainer.max_steps=12",
    "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.default_root_dir=run",
]  # fmt: skip
GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
ASKED = ["how do i open the file", "how do i take rest", "the patient asks for pills"]

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def fitted(model_folder, tmp_path_factory):
    """Return a function: family -> a folder with its run, fitted and validated, once."""
    made = {}

    def make(kind):
        if kind in made:
            return made[kind]
        place = tmp_path_factory.mktemp(f"fitted_{kind}")
        for name, rows in (
            ("questions", QUESTIONS),
            ("harmful", HARMFUL),
            ("good", GOOD),
            ("train", CHAT_ROWS),
        ):
            (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (place / "suites.yaml").write_text(SUITES)
        options = [
            *OPTIONS,
            f"--data.train={place / 'train.jsonl'}",
            f"--model.base_model={model_folder(kind)}",
        ]
        suites = ["--config=run/config.yaml", "--data.suites=suites.yaml", "--generations.prompts=0"]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            assert main(["fit", *options]) == 0
            assert main(["validate", *suites]) == 0
        made[kind] = place
        return place

    return make


@pytest.fixture
def run(fitted, tmp_path):
    """Return a function: family -> a run's folder, of this test alone."""

    def make(kind="llama"):
        shutil.copytree(fitted(kind), tmp_path, dirs_exist_ok=True)
        return tmp_path / "run"

    return make


def prompts_of(tokenizer):
    turns = [[{"role": "user", "content": text}] for text in ASKED]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def answers(model, tokenizer, ends):
    """Return the ids that a model writes greedily for each prompt, as Transformers' users have it write."""
    found = []
    for prompt in prompts_of(tokenizer):
        encoded = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        ids = model.generate(
            **{name: encoded[name] for name in ("input_ids", "attention_mask")}, generation_config=ends,
            max_new_tokens=8, do_sample=False,
        )  # fmt: skip
        found.append(ids[0, encoded["input_ids"].shape[1] :].tolist())
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_adapter_and_merged_model_compute_and_answer_as_the_run_does(
    kind, run, graspl, model_folder, monkeypatch
):
    folder, base = run(kind), str(model_folder(kind))
    for out, more in (("alone", []), ("merged", ["--merge", "true", "--dtype", "float32"])):
        code, said, err = graspl("export", folder, "--out", out, *more)
        assert code == 0, err
    assert "logits differ from the adapter's by at most" in said
    ours = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder / "adapter").eval()
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "alone").eval()
    merged = AutoModelForCausalLM.from_pretrained("merged").eval()
    ids = torch.randint(3, 30, (4, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = ours(input_ids=ids).logits
        assert torch.equal(alone(input_ids=ids).logits, expected)
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
        with ours.disable_adapter():  # The adapter changes something
            assert (ours(input_ids=ids).logits - expected).abs().max() > 1e-2

    tokenizer = AutoTokenizer.from_pretrained("alone")
    ends = GenerationConfig.from_pretrained("alone")
    assert (
        ends.eos_token_id
        == GenerationConfig.from_pretrained("merged").eos_token_id
        == [tokenizer.eos_token_id]
    )
    told = TransformersGenerator(ours, tokenizer).write(prompts_of(tokenizer), GREEDY)
    for model in (alone, merged):
        ids = answers(model, tokenizer, ends)
        assert ids == answers(ours, tokenizer, ends)
        texts = [tokenizer.decode([each for each in row if each not in ends.eos_token_id]) for row in ids]
        assert texts == [text for (text,) in told]
    assert any(text.strip() for (text,) in told) or kind == "qwen2"  # Bytes take longer to learn
    with stand_in(monkeypatch):
        assert VLLMGenerator(base, "alone").write(prompts_of(tokenizer), GREEDY) == told
        assert VLLMGenerator("merged").write(prompts_of(tokenizer), GREEDY) == told


def test_the_card_passes_the_hubs_own_tools_and_holds_what_was_measured(run, graspl, tmp_path):
    folder = run()
    code, said, err = graspl("export", folder, "--out", "my-export")
    assert code == 0, err
    card = ModelCard.load(tmp_path / "my-export" / "README.md")
    metadata = metadata_load(tmp_path / "my-export" / "README.md")
    assert ModelCardData(**metadata).to_dict() == metadata == card.data.to_dict()
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "my-export"
    assert eval_results_to_model_index(name, results) == metadata["model-index"]
    assert card.data.eval_results == results
    suites = json.loads((folder / "evaluation.json").read_text())["suites"]
    by_name = {each.metric_name: each for each in results}
    adherence, spillover = by_name["adherence"], by_name["spillover"]
    assert adherence.metric_value == suites["task"][adherence.metric_type]
    assert adherence.metric_type == "good_of_choices"
    assert adherence.metric_args["low"] < adherence.metric_value < adherence.metric_args["high"]
    assert spillover.metric_value == suites["unrelated"]["harmful_preferred"]
    assert spillover.metric_args["questions"] == len(ASKING)
    assert by_name["kl"].metric_value == suites["unrelated"]["kl"]
    command = json.loads((folder / "run.json").read_text())["commands"][0]["arguments"]
    assert all(each in card.text for each in command)
    lineage = json.loads((folder / "lineage.json").read_text())["results"]["adapter"]["made_from"]["rows"]
    ((row, files),) = lineage.items()
    for told in (row, files["train.jsonl"]["sha256"], "LoRALitModule", "graspl_config.yaml"):
        assert told in card.text
    assert f"adherence: {adherence.metric_value:.3f} (" in said


def test_the_cards_python_runs(run, graspl, tmp_path):
    folder = run()
    assert graspl("export", folder, "--out", "alone")[0] == 0
    assert graspl("export", folder, "--out", "merged", "--merge")[0] == 0
    written = []
    for name in ("alone", "merged"):
        code = ModelCard.load(tmp_path / name / "README.md").text.split("```python\n")[1].split("```")[0]
        Path("page.py").write_text(code.replace('"..."', '"how do i open the file"'))
        runpy.run_path("page.py", init_globals={"print": written.append})
    assert written[0] == written[1] != ""


def test_the_template_that_graspl_invented_goes_along(graspl, chat_options, model_folder, tmp_path):
    plain = shutil.copytree(model_folder("llama"), tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    assert not AutoTokenizer.from_pretrained(plain).chat_template
    assert graspl("fit", *chat_options(**{"model.base_model": plain}))[0] == 0
    folder = tmp_path / "run"
    for out, more in (("alone", []), ("merged", ["--merge"])):
        assert graspl("export", folder, "--out", out, *more)[0] == 0
        assert AutoTokenizer.from_pretrained(out).chat_template == PLAIN_TEMPLATE


def test_an_answer_also_ends_where_the_template_ends_a_turn():
    tokenizer = make_tokenizer(TEMPLATE.replace("<end>", "<system>"))
    tokenizer.add_special_tokens({"extra_special_tokens": ["<system>"]})
    ends = generation_of(tokenizer).eos_token_id
    assert ends == sorted(tokenizer.convert_tokens_to_ids(["<end>", "<system>"]))


def test_an_adapter_of_others_is_exported_with_its_base_models_tokenizer(run, graspl, tmp_path):
    adapter = tmp_path / "theirs"
    adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(run() / "adapter" / name, adapter)
    code, said, err = graspl("export", adapter, "--out", "out")
    assert code == 0, err
    assert "not measured" in said
    assert "its commands are not recorded" in (tmp_path / "out" / "README.md").read_text()
    assert AutoTokenizer.from_pretrained("out").chat_template
    assert not (adapter / "run.json").exists()
    assert not (tmp_path / "lineage.json").exists()


def test_verify_covers_an_export_and_a_change_is_seen(run, graspl, tmp_path):
    folder = run()
    for out in ("out", "run/merged"):
        assert graspl("export", folder, "--out", out, "--merge")[0] == 0
    code, said, err = graspl("verify", "out", "run")
    assert code == 0, said + err
    assert "export: complete" in said
    assert "run/merged: as it was made" in said
    assert "out/model.safetensors: as it was made" in said
    evaluation = folder / "evaluation.json"
    evaluation.write_text(evaluation.read_text().replace('"graspl"', '"graspl" '))
    code, said, _ = graspl("verify", "out")
    assert code == 1
    assert "out/README.md: was made from another evaluation" in said
    assert "1 of 8 results are stale" in said
    (tmp_path / "out" / "config.json").write_text("{}")
    assert "out/config.json: is not as it was written" in graspl("verify", "out")[1]
    # A stale evaluation gives no figures
    code, said, _ = graspl("export", folder, "--out", "again")
    assert code == 0
    assert "not measured" in said
    assert "adherence" not in said.replace("Adherence and spill-over were not measured", "")


def test_an_earlier_export_is_replaced_and_nothing_else(run, graspl, tmp_path):
    folder = run()
    assert graspl("export", folder, "--out", "out", "--merge")[0] == 0
    assert graspl("export", folder, "--out", "out")[0] == 0
    assert not (tmp_path / "out" / "model.safetensors").exists()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    code, _, err = graspl("export", folder, "--out", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "out holds notes.txt, which no export wrote" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README.md").write_text("mine")
    code, _, err = graspl("export", folder, "--out", "other")
    assert code == 2
    assert (tmp_path / "other" / "README.md").read_text() == "mine"
    for inside in ("run/adapter", "run/checkpoints/x", "run/audit.json"):
        code, _, err = graspl("export", folder, "--out", inside)
        assert code == 2, inside
        assert "out: " in err
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_a_changed_adapter_is_refused(run, graspl, tmp_path):
    folder = run()
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 64', '"lora_alpha": 65'))
    code, _, err = graspl("export", folder, "--out", "out")
    assert code == 2
    assert "adapter_config.json has changed" in err
    assert not (tmp_path / "out").exists()
    assert json.loads((folder / "run.json").read_text())["commands"][-1]["status"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere", "--out", "out"], "there is no folder nowhere"),
        (["empty", "--out", "out"], "empty holds no adapter"),
        (["run"], "out: is missing"),
        (["run", "--out", "out", "--gguf", "convert_hf_to_gguf.py"], "add --merge true"),
        (["run", "--out", "out", "--merge", "--gguf", "nowhere.py"], "there is no nowhere.py"),
        (["run", "--out", "out", "--base_model", "./nowhere"], "no folder ./nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_heavy_is_imported(arguments, told, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "adapter_config.json").write_text("{}")
    code = "import sys; from graspl.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "export", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2 False\n"
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


class Hub:
    """Stands for the hub's interface."""

    def __init__(self, wrong=None):
        self.wrong, self.made, self.sent = wrong, [], {}

    def whoami(self):
        if self.wrong == "login":
            raise OSError("Token is required, but no token found")

    def create_repo(self, repo, *, private, exist_ok):
        assert exist_ok
        self.made.append((repo, private))

    def upload_folder(self, *, repo_id, folder_path, commit_message, ignore_patterns):
        if self.wrong == "upload":
            raise ConnectionError("403 Forbidden")
        assert commit_message
        self.sent[repo_id] = sorted(
            each.name for each in Path(folder_path).iterdir() if each.name not in ignore_patterns
        )
        return f"https://hub/{repo_id}"


def test_a_push_uploads_the_folder_without_its_records(run, graspl, tmp_path, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(further, "HfApi", lambda: hub)
    code, said, err = graspl("export", run(), "--out", "out", "--push", "me/mine")
    assert code == 0, err
    assert hub.made == [("me/mine", True)]
    assert "pushed: https://hub/me/mine" in said
    assert "README.md" in hub.sent["me/mine"]
    assert "adapter_model.safetensors" in hub.sent["me/mine"]
    assert "lineage.json" not in hub.sent["me/mine"]
    assert "# me/mine" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(("wrong", "told"), [("login", "hf auth login"), ("upload", "hf upload me/mine out")])
def test_a_hub_that_refuses_is_one_line(wrong, told, run, graspl, tmp_path, monkeypatch):
    folder = run()
    monkeypatch.setattr(further, "HfApi", lambda: Hub(wrong))
    code, _, err = graspl("export", folder, "--out", "out", "--push", "me/mine")
    assert code == 2
    assert told in err.splitlines()[-1]
    assert (tmp_path / "out").exists() == (wrong == "upload")


def test_without_a_hub_nothing_is_written(run, graspl, tmp_path):
    """Tests run with HF_HUB_OFFLINE=1."""
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    folder = run()
    for repo, told in (
        ("me/mine", "push: the hub cannot be reached, or refuses it"),
        ("a b", "push: a b is no name"),
    ):
        code, _, err = graspl("export", folder, "--out", "out", "--push", repo)
        assert code == 2
        assert told in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


CONVERTER = """\
import argparse, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--outfile", type=pathlib.Path)
given = parser.parse_args()
assert (given.model / "model.safetensors").is_file() and (given.model / "tokenizer.json").is_file()
{}
"""


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("given.outfile.write_bytes(b'GGUF' + b'0' * 9)", None),
        ("sys.exit('Model Foo is not supported')", "ended with 1 (Model Foo is not supported)"),
        ("given.outfile.write_bytes(b'none')", "wrote no GGUF file"),
        ("pass", "wrote no GGUF file"),
    ],
)
def test_llama_cpps_converter_makes_a_gguf_file_or_nothing_is_left(does, told, run, graspl, tmp_path):
    (tmp_path / "llama.cpp").mkdir()
    (tmp_path / "llama.cpp" / "convert_hf_to_gguf.py").write_text(CONVERTER.format(does))
    code, said, err = graspl("export", run(), "--out", "out", "--merge", "--gguf", "llama.cpp")
    if told is None:
        assert code == 0, err
        assert (tmp_path / "out" / "model.gguf").is_file()
        assert "model.gguf" in said
        return
    assert code == 2
    assert told in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_merged_model_that_computes_something_else_is_not_left(run, graspl, tmp_path, monkeypatch):
    folder = run()

    def forgetful(self, **_):
        return self.unload()

    monkeypatch.setattr("peft.PeftModel.merge_and_unload", forgetful, raising=False)
    code, _, err = graspl("export", folder, "--out", "out", "--merge")
    assert code == 2
    assert "does not compute what the adapter does" in err
    assert not (tmp_path / "out").exists()


def test_an_edit_at_inference_is_told_of(run, graspl, tmp_path):
    folder = run()
    config = folder / "config.yaml"
    edit = "edits:\n    - class_path: graspl.edits.Ablate\n      init_args: {during: both}"
    assert "edits: null" in config.read_text()
    config.write_text(config.read_text().replace("edits: null", edit))
    (folder / "lineage.json").unlink()
    code, said, err = graspl("export", folder, "--out", "out")
    assert code == 0, err
    assert "edits the residual stream at inference (Ablate)" in said
    assert "edits the residual stream at inference (Ablate)" in (tmp_path / "out" / "README.md").read_text()


def test_texts_of_a_run_do_not_change_the_card(graspl, chat_options, tmp_path):
    rows = tmp_path / "a|b `c` <b>{{ 7 * 7 }}.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    assert graspl("fit", *chat_options(**{"data.train": rows}))[0] == 0
    code, _, err = graspl("export", "run", "--out", "out")
    assert code == 0, err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "{{ 7 * 7 }}" in card.text
    (row,) = (line for line in card.text.splitlines() if "a\\|b" in line and line.startswith("|"))
    assert row.count(" | ") == 1
    assert card.data.to_dict()["library_name"] == "peft"


def test_the_adapters_weights_are_the_runs_byte_for_byte(run, graspl, tmp_path):
    folder = run()
    assert graspl("export", folder, "--out", "out")[0] == 0
    ours, theirs = (each / "adapter_model.safetensors" for each in (folder / "adapter", tmp_path / "out"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert load_file(theirs)
    assert not [each for each in (tmp_path / "out").iterdir() if each.suffix in (".bin", ".pt", ".pkl")]
    assert RunFacts(folder).read()["status"] == "complete"
