"""Rows and files of kinds that went wrong once: what they teach is checked by hand, or they are refused."""

import csv
import gzip
import json
import logging
import lzma

import pytest
from conftest import make_tokenizer
from datasets import Dataset

from graspl.data import read_conversations, read_prompts, tokenize
from graspl.errors import GrasplError

ROW = {"prompt": "take water", "completion": "yes"}
TURNS = [{"role": "user", "content": "take water"}, {"role": "assistant", "content": "yes"}]
# Shows everything that a turn may hold
SHOWS_ALL = (
    "{% for t in tools or [] %}tool {{ t.function.name }} {% endfor %}{% for m in messages %}{{ m.role }} "
    "{% if m.reasoning_content %}maybe {{ m.reasoning_content }} {% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %} open {{ c.function.name }} {{ c.function.arguments.path }}{% endfor %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)


def learnt(row, template=SHOWS_ALL, **options):
    """Return the words that a row's answers teach."""
    tokenizer = make_tokenizer(chat_template=template, **options)
    made = tokenize(tokenizer, row.messages, origin=row.origin, tools=row.tools)
    return tokenizer.decode([label for label in made.labels if label != -100])


@pytest.fixture
def written(tmp_path):
    """Return a function that writes rows as JSON lines and reads them."""

    def make(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_conversations(str(path))

    return make


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "take water"}, {"from": "gpt", "value": "yes"}]},
        {"conversations": TURNS},
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in TURNS]},
        {
            "messages": [
                TURNS[0],
                {**TURNS[1], "content": [{"type": "text", "text": each} for each in ("y", "es")]},
            ]
        },
    ],
    ids=[
        "from and value",
        "conversations of messages",
        "lists of messages",
        "text parts",
        "several text parts",
    ],
)
def test_sharegpt(row, written):
    assert written(row)[0].messages == TURNS


def test_sharegpt_roles_and_parts_that_nobody_knows_are_refused(written):
    with pytest.raises(
        GrasplError, match=r"rows\.jsonl:1: conversations\[0\]\.from must be one of human, user"
    ):
        written({"conversations": [{"from": "narrator", "value": "once"}]})
    image = [{"type": "text", "text": "see"}, {"type": "image", "url": "x"}]
    with pytest.raises(
        GrasplError, match=r"messages\[0\]\.content: has parts of type image, text; graspl reads text"
    ):
        written({"messages": [{"role": "user", "content": image}, TURNS[1]]})


def test_dropped_fields_of_turns_are_used(written):
    """The ids that are trained are those of the call, of the thought, and of answers with a weight alone."""
    call = {"id": "1", "type": "function", "function": {"name": "file", "arguments": '{"path": "code"}'}}
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    [row] = written(
        {"messages": [TURNS[0], asked], "tools": [{"type": "function", "function": {"name": "print"}}]}
    )
    assert learnt(row).split()[:3] == ["open", "file", "code"]
    tokenizer = make_tokenizer(chat_template=SHOWS_ALL)
    assert "print" in tokenizer.decode(tokenize(tokenizer, row.messages, tools=row.tools).input_ids)
    [row] = written({"messages": [TURNS[0], {**TURNS[1], "reasoning_content": "one two"}]})
    assert learnt(row).split()[:4] == ["maybe", "one", "two", "yes"]
    answers = [
        {"role": "assistant", "content": each, "weight": weight} for each, weight in (("no", 0), ("yes", 1))
    ]
    [row] = written({"messages": [TURNS[0], answers[0], TURNS[0], answers[1]]})
    assert learnt(row).split()[0] == "yes"
    assert "no" not in learnt(row).split()


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (
            {**ROW, "system": "you safe"},
            [("system", "you safe"), ("user", "take water"), ("assistant", "yes")],
        ),
        (
            {"messages": TURNS, "system": "you safe"},
            [("system", "you safe"), ("user", "take water"), ("assistant", "yes")],
        ),
        (
            {
                "instruction": "take water",
                "input": "",
                "output": "yes",
                "history": [["how", "rest"]],
                "system": "",
            },
            [("user", "how"), ("assistant", "rest"), ("user", "take water"), ("assistant", "yes")],
        ),
    ],
    ids=["system of a prompt", "system of messages", "history"],
)
def test_dropped_fields_of_rows_are_used(row, turns, written):
    assert [(each["role"], each["content"]) for each in written(row)[0].messages] == turns


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"messages": [TURNS[0], {**TURNS[1], "weight": 0.5}]},
            r"messages\[1\]\.weight is 0\.5; it must be 0 or 1",
        ),
        (
            {"messages": [TURNS[0], {**TURNS[1], "tool_calls": ["open"]}]},
            r"tool_calls: a call must have a function",
        ),
        ({**ROW, "tools": "{"}, "tools is not JSON"),
        (
            {"messages": [{"role": "system", "content": "a"}, *TURNS], "system": "b"},
            "a field system and a system turn",
        ),
        ({"instruction": "a", "output": "b", "history": ["c"]}, r"history\[0\] must be a list of a question"),
    ],
)
def test_dropped_fields_that_are_broken_are_named(row, says, written):
    with pytest.raises(GrasplError, match=rf"rows\.jsonl:1: .*{says}"):
        written(row)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (
            {"messages": [TURNS[0], {**TURNS[1], "reasoning_content": "two"}]},
            r"messages\[1\]\.reasoning_content",
        ),
        (
            {"messages": [TURNS[0], {**TURNS[1], "tool_calls": [{"name": "open", "arguments": {}}]}]},
            r"messages\[1\]\.tool_calls",
        ),
        ({"messages": TURNS, "tools": [{"function": {"name": "open"}}]}, "tools"),
    ],
)
def test_dropped_fields_that_a_template_hides_are_refused(row, field, written):
    [read] = written(row)
    turns = "{% for m in messages %}{{ m.role }} {{ m.content }}{{ eos_token }}{% endfor %}"
    plain = turns + "{% if add_generation_prompt %}assistant {% endif %}"
    with pytest.raises(
        GrasplError, match=rf"rows\.jsonl:1: the chat template does not show {field}; remove it"
    ):
        learnt(read, plain)


def test_dropped_fields_that_nothing_reads_are_counted_in_one_line(written, caplog):
    with caplog.at_level(logging.WARNING):
        written(
            {**ROW, "id": 1, "source": None}, {"messages": [{**TURNS[0], "mood": "sad"}, TURNS[1]], "id": 2}
        )
    assert [each.message.split(": ", 1)[1] for each in caplog.records] == [
        "fields that graspl does not read, with the number of rows that have them: id (2), messages[].mood (1)"
    ]


def test_dropped_fields_are_named_so_that_a_terminal_can_show_them(written, caplog):
    with caplog.at_level(logging.WARNING):
        written({**ROW, "\ud800\x1b[2J": 1} | {f"f{n:02}": 1 for n in range(30)})
    assert caplog.records[0].message.endswith("f19 (1) and 11 more")
    with caplog.at_level(logging.WARNING):
        written({**ROW, "\ud800\x1b[2J": 1})
    assert caplog.records[1].message.endswith(": \\ud800\\x1b[2J (1)")


def test_a_row_whose_answers_all_have_weight_0_teaches_nothing(written):
    [row] = written({"messages": [TURNS[0], {**TURNS[1], "weight": 0}]})
    with pytest.raises(GrasplError, match=r"rows\.jsonl:1: every answer has weight 0"):
        learnt(row)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"prompt": "take \ud800", "completion": "yes"}, "prompt"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "\udfff"}]}, r"messages\[1\]\.content"),
        ({"instruction": "take", "output": "\ud800"}, "output"),
    ],
)
def test_pad_and_surrogates_of_rows(row, field, written):
    with pytest.raises(GrasplError, match=rf"rows\.jsonl:1: {field}: is not valid Unicode text \(surrogates"):
        written(row)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + json.dumps(ROW).encode()),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps([ROW]).encode()),
        ("rows.jsonl.gz", gzip.compress(json.dumps(ROW).encode(), mtime=0)),
        ("rows.JSON.GZ", gzip.compress(json.dumps([ROW]).encode(), mtime=0)),
        ("rows.csv.xz", lzma.compress(b"prompt,completion\ntake water,yes\n")),
        ("rows.JSONL", json.dumps(ROW).encode()),
    ],
)
def test_files(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert read_conversations(str(path))[0].messages == TURNS


@pytest.mark.parametrize("name", ["rows.PARQUET", "rows.parquet", "rows.arrow"])
def test_files_of_tables(name, tmp_path):
    table = Dataset.from_list([ROW])
    path = tmp_path / name
    if path.suffix == ".arrow":
        table.save_to_disk(tmp_path / "saved")
        next((tmp_path / "saved").glob("*.arrow")).rename(path)
    else:
        table.to_parquet(path)
    assert read_conversations(str(path))[0].messages == TURNS


def test_files_with_long_cells(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "completion"], ["take " * 40_000, "yes"]])
    assert len(read_prompts(str(path))[0].messages[0]["content"]) == 200_000


def test_files_that_are_there_are_never_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("looked up"))
    path = tmp_path / "rows.docx"
    path.write_bytes(b"PK")
    with pytest.raises(GrasplError, match=r"rows\.docx: is of no kind that graspl reads; .*\.jsonl"):
        read_conversations(str(path))


def test_files_that_are_cut_off_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode() * 50)[:40])
    with pytest.raises(GrasplError, match=r"rows\.jsonl\.gz: cannot be unpacked"):
        read_conversations(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(GrasplError, match=r"rows\.jsonl\.gz: cannot be (read|unpacked)"):
        read_conversations(str(path))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_key_that_stands_there_twice_is_refused(name, tmp_path):
    row = '{"prompt": "take", "prompt": "open", "completion": "yes"}'
    file = tmp_path / name
    file.write_text(f"{row}\n" if name.endswith("l") else f"[{row}]")
    with pytest.raises(GrasplError, match="the key 'prompt' stands there twice"):
        read_conversations(str(file))
