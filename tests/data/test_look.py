"""`graspl data` shows what a fit trains on: the same rows, the same tokens, and why others are left out."""

import json
from io import StringIO

import pytest
import torch
from chat_templates import FAMILIES, tokenizer_of
from conftest import CHAT_ROWS, make_tokenizer
from rich.console import Console
from rich.text import Text

from graspl.adapters.answers import IGNORED
from graspl.data import ChatDataModule, tokenize
from graspl.data.look import histogram, look_at, pieces
from graspl.reporting.rows import CLOSE, OPEN, MarkedRow, shortened

USER, ANSWER = {"role": "user", "content": "how do i"}, {"role": "assistant", "content": "yes you do"}
FORMS = {
    "messages": {"messages": [USER, ANSWER]},
    "system turn": {"messages": [{"role": "system", "content": "safe"}, USER, ANSWER]},
    "two answers": {"messages": [USER, ANSWER, USER, {"role": "assistant", "content": "no"}]},
    "weights": {"messages": [USER, {**ANSWER, "weight": 0}, USER, ANSWER]},
    "turn behind": {"messages": [USER, ANSWER, USER]},
    "parts": {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "how"}, {"from": "gpt", "value": "yes no"}]},
    "conversations": {"conversations": [USER, ANSWER]},
    "prompt": {"prompt": "how do i", "completion": "yes you do"},
    "prompt turns": {"prompt": [USER], "completion": [ANSWER]},
    "alpaca": {"instruction": "how", "input": "water", "output": "yes"},
    "history": {"instruction": "how", "output": "yes", "history": [["a", "b"]]},
    "system field": {"system": "safe", "prompt": "how do i", "completion": "yes"},
    "instances": {"instruction": "how", "instances": [{"input": "", "output": "yes"}]},
}


def seen_by_the_loss(data):
    """Return ids and labels of every row of one epoch's batches, without the padding."""
    data.setup("fit")
    rows = []
    for batch in data.train_dataloader():
        for ids, labels, mask in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
        ):
            length = int(mask.sum())
            rows.append((ids[:length].tolist(), labels[:length].tolist()))
    return rows


def shown(example, *, colours):
    """Return the text of a row as a console shows it, and its parts that look trained."""
    file = StringIO()
    console = Console(
        file=file, width=10_000, force_terminal=colours, color_system="truecolor" if colours else None
    )
    console.print(MarkedRow(example["pieces"]), highlight=False, markup=False)
    if colours:
        text = Text.from_ansi(file.getvalue())
        return text.plain, [text.plain[each.start : each.end] for each in text.spans]
    whole = file.getvalue()
    trained = [part.partition(CLOSE)[0] for part in whole.split(OPEN)[1:]]
    return whole.replace(OPEN, "").replace(CLOSE, ""), trained


def module(rows, tokenizer, **options):
    data = ChatDataModule(train=str(rows), base_model="organism", batch_size=2, **options)
    data._tokenizer = tokenizer
    return data


def unspaced(text):
    return "".join(text.split())


def check(data):
    """Check every row shown against the batches, and both ways to mark it against each other."""
    found, seen = look_at(data), seen_by_the_loss(data)
    assert found["rows"]["trained"] == len(seen)
    assert found["tokens"]["trained"] == sum(label != IGNORED for _, labels in seen for label in labels)
    assert found["examples"]
    for example in found["examples"]:
        ids = [each for piece in example["pieces"] for each in piece["ids"]]
        labels = [
            each if piece["trained"] else IGNORED for piece in example["pieces"] for each in piece["ids"]
        ]
        assert (ids, labels) in seen
        assert "".join(piece["text"] for piece in example["pieces"]) == data.tokenizer.decode(ids)
        plain, trained = shown(example, colours=False)
        assert trained
        coloured, also = shown(example, colours=True)
        assert unspaced("".join(trained)) == unspaced("".join(also))
        assert unspaced(plain) == unspaced(coloured)
        assert unspaced("".join(trained)) == "".join(
            unspaced(piece["text"].replace("\n", "\\n")) for piece in example["pieces"] if piece["trained"]
        )
    return found


@pytest.mark.parametrize("form", FORMS)
def test_marked_tokens_are_those_of_the_loss_in_every_form(form, write_rows):
    found = check(module(write_rows([FORMS[form]] * 3), make_tokenizer()))
    assert len(found["formats"]) == 1
    assert {each.strip() for name in found["formats"] for each in name.split(",")} <= set(FORMS[form])


@pytest.mark.parametrize("family", FAMILIES)
def test_marked_tokens_are_those_of_the_loss_under_every_template(family, write_rows):
    rows = [
        {"prompt": f"Is water wet? {word}", "completion": f"Yes \u00e9\u4e2d {word * 5}"} for word in "ab cdé"
    ]
    found = check(module(write_rows(rows), tokenizer_of(family)))
    end = found["end_of_answer"]
    assert end["token"] == FAMILIES[family].end
    assert found["chat_template"]["invented"] == (FAMILIES[family].template is None)
    for example in found["examples"]:
        (answer,) = [piece for piece in example["pieces"] if piece["trained"]]
        assert "Yes \u00e9" in answer["text"]
        assert end["id"] in answer["ids"]


def test_rows_that_are_dropped_or_cut_are_counted_with_the_reason(write_rows):
    long = {"prompt": "how do i", "completion": "yes " * 30}
    asks = {"prompt": "how " * 30, "completion": "yes"}
    rows = write_rows([CHAT_ROWS[0]] * 8 + [long, asks])
    options = {"max_length": 20, "validation": str(write_rows([9], "held.json"))}
    write_rows(["[0]"], "held.json")

    stops = look_at(module(rows, make_tokenizer(), **options))
    assert [(each["rows"], each["why"][:28]) for each in stops["left_out"]] == [
        (2, "longer than max_length 20: a")
    ]
    assert stops["left_out"][0]["first"] == [f"{rows}:9", f"{rows}:10"]
    assert stops["histogram"][-1] == {"from": 21, "to": None, "rows": 2}

    dropped = check(module(rows, make_tokenizer(), too_long="drop", **options))
    assert [(each["rows"], each["why"]) for each in dropped["left_out"]] == [
        (2, "dropped: longer than max_length 20")
    ]
    cut = check(module(rows, make_tokenizer(), too_long="truncate", **options))
    assert [(each["rows"], each["why"][:30]) for each in cut["left_out"]] == [
        (1, "dropped: no answer begins with"),
        (1, "cut at max_length 20: the end "),
    ]
    assert (cut["rows"]["trained"], cut["rows"]["held_out"], cut["rows"]["read"]) == (8, 1, 10)


def test_turns_and_fields_that_nothing_reads_are_counted(write_rows):
    rows = write_rows([{**FORMS["turn behind"], "note": "x"}] * 2 + [FORMS["weights"]])
    found = look_at(module(rows, make_tokenizer(), validation=str(write_rows([FORMS["prompt"]], "v.jsonl"))))
    assert found["unread_fields"] == {"note": 2}
    assert {each["why"]: each["rows"] for each in found["left_out"]} == {
        "turns behind the last answer are left out": 2,
        "answers with weight 0 are not trained": 1,
    }


def test_operators_are_applied_as_in_a_fit(write_rows):
    from graspl.data import Subsample

    found = check(module(write_rows(CHAT_ROWS), make_tokenizer(), operators=[Subsample(7)]))
    assert found["rows"]["trained"] == 7
    assert found["rows"]["changed_by_operators"] < 0


def test_a_character_of_several_tokens_is_whole():
    tokenizer = tokenizer_of("chatml")
    row = tokenize(tokenizer, [USER, {"role": "assistant", "content": "\u4e2d\U0001f600 \x1b[31m"}])
    assert "\u4e2d\U0001f600 \x1b[31m" in "".join(each.text for each in pieces(tokenizer, row))


def test_bins_hold_every_row_once():
    generator = torch.Generator().manual_seed(0)
    for most, limit in ((1, 5), (3, 100), (700, 512), (5000, 2048), (40, 10)):
        lengths = torch.randint(1, most + 1, (200,), generator=generator).tolist()
        bins = histogram(lengths, limit)
        assert sum(each["rows"] for each in bins) == 200
        assert len(bins) <= 11
        assert all(each["to"] is None or each["to"] <= limit for each in bins)
    assert histogram([30, 40], 10) == [
        {"from": 10, "to": 10, "rows": 0},
        {"from": 11, "to": None, "rows": 2},
    ]


def test_the_middle_of_a_long_row_is_left_out():
    given = [{"text": letter * 100, "trained": letter in "bd"} for letter in "abcde"]
    kept = shortened(given, 100)
    text = "".join(each["text"] for each in kept)
    assert text == "a" * 50 + " [... 400 characters left out ...] " + "e" * 50
    kept = shortened(given, 300)
    assert "".join(each["text"] for each in kept if each["trained"]) == "b" * 50 + "d" * 50
    assert shortened(given, 500) == given


def test_the_command_shows_and_prints_json(graspl, model_folder, write_rows):
    rows = write_rows([*CHAT_ROWS, {"prompt": "how \x1b[2J", "completion": "[red] \x1b]0;evil\x07 yes"}] * 2)
    code, out, err = graspl("data", rows, "--base_model", model_folder("qwen2"))
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "\x07" not in out
    for part in ("67 to train on; 7 held out of 74", "74 rows with prompt, completion", "<end> (id 2)", "{+"):
        assert part in out
    code, out, _ = graspl("data", rows, "--base_model", model_folder("qwen2"), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["rows"]["trained"] == 67
    assert found["chat_template"]["from"].endswith("chat_template.jinja")


def test_the_command_says_where_a_fit_would_stop(graspl, model_folder, write_rows):
    rows = write_rows(CHAT_ROWS)
    code, out, _ = graspl("data", rows, "--base_model", model_folder(), "--max_length", 14)
    assert code == 1
    assert "longer than max_length 14: a fit stops" in " ".join(out.split())
    code, out, _ = graspl(
        "data", rows, "--base_model", model_folder(), "--max_length", 14, "--too_long", "drop"
    )
    assert code == 1
    assert "0 to train on" in out


@pytest.mark.parametrize(
    ("rows", "part"),
    [(['{"prompt"'], "train.jsonl:1: not JSON"), ([{"prompt": "how"}], "train.jsonl:1: has the fields")],
)
def test_what_a_fit_refuses_is_refused(graspl, model_folder, write_rows, rows, part):
    code, out, err = graspl("data", write_rows(rows), "--base_model", model_folder())
    assert (code, out) == (2, "")
    assert part in err
    assert len(err.splitlines()) == 1


def test_a_terminal_of_80_columns_is_enough(model_folder, write_rows, monkeypatch):
    """Also for long names and long rows; colours in a terminal, none where NO_COLOR is set."""
    from graspl.reporting.rows import data_parts

    rows = write_rows([{"prompt": "how " * 400, "completion": "yes " * 400}] * 4, "a" * 90 + ".jsonl")
    found = {"train": str(rows), **look_at(module(rows, make_tokenizer(), max_length=20_000))}
    for no_color in (False, True):
        file = StringIO()
        console = Console(
            file=file, width=80, force_terminal=True, color_system="standard", no_color=no_color
        )
        for part in data_parts(found):
            console.print(part, soft_wrap=isinstance(part, str), highlight=False, markup=False)
        text = Text.from_ansi(file.getvalue()).plain
        lines = [line for line in text.splitlines() if not line.startswith(str(rows))]
        assert max(len(line.rstrip()) for line in lines) <= 80
        assert (OPEN in text) == no_color
        assert "characters left out" in text
