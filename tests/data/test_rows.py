import json

import datasets
import pytest

from graspl.data import read_conversations, read_prompts
from graspl.errors import GrasplError

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": [USER, ANSWER]}, ["user q", "assistant a"]),
        ({"messages": [USER, ANSWER, USER]}, ["user q", "assistant a"]),  # no answer follows the last turn
        ({"prompt": "p", "completion": "c", "id": 3}, ["user p", "assistant c"]),
        ({"instruction": "i", "input": "", "output": "o"}, ["user i", "assistant o"]),
        ({"instruction": "i", "input": "x", "output": "o"}, ["user i\n\nx", "assistant o"]),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_three_formats_become_conversations(tmp_path, name, row, turns):
    file = tmp_path / name
    file.write_text(json.dumps(row) + "\n")
    (found,) = read_conversations(str(file))
    assert [f"{turn['role']} {turn['content']}" for turn in found.messages] == turns
    assert "rows.json" in found.origin


@pytest.mark.parametrize(
    ("row", "last"),
    [
        ({"prompt": "p"}, "p"),
        ({"prompt": "p", "completion": "c"}, "p"),
        ({"instruction": "i", "input": "x"}, "i\n\nx"),
        ({"messages": [USER]}, "q"),
        ({"messages": [USER, ANSWER]}, "q"),
    ],
)
def test_prompts_need_no_answer(write_rows, row, last):
    (found,) = read_prompts(str(write_rows([row])))
    assert found.messages[-1] == {"role": "user", "content": last}


def test_rows_without_a_prompt_are_named(write_rows):
    with pytest.raises(GrasplError, match=r"train\.jsonl:1: has no user turn"):
        read_prompts(str(write_rows([{"messages": [ANSWER]}])))
    with pytest.raises(GrasplError, match=r"train\.jsonl:1: has the fields"):
        read_prompts(str(write_rows([{"text": "x"}])))
    assert len(read_prompts(str(write_rows([{"prompt": "p"}] * 5)), limit=2)) == 2


def test_blank_lines_are_skipped_and_lines_are_counted(write_rows):
    file = write_rows([{"prompt": "p", "completion": "c"}, "", {"prompt": "p", "completion": "d"}])
    assert [row.origin for row in read_conversations(str(file))] == [f"{file}:1", f"{file}:3"]
    assert len(read_conversations(str(file), limit=1)) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"messages": [', "not JSON"),
        ("[1]", "must be a JSON object"),
        ({"text": "x"}, r"has the fields \['text'\]"),
        ({"messages": [USER]}, "has no assistant turn"),
        ({"messages": []}, "has no assistant turn"),
        ({"messages": "x"}, "messages must be a list"),
        ({"messages": [USER, {"role": "robot", "content": "a"}]}, r"messages\[1\]\.role must be one of"),
        (
            {"messages": [USER, {"role": "assistant", "content": None}]},
            r"messages\[1\]\.content must be text",
        ),
        ({"prompt": 1, "completion": "c"}, "prompt must be text"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(write_rows, row, message):
    file = write_rows([{"prompt": "p", "completion": "c"}, row])
    with pytest.raises(GrasplError, match=rf"train\.jsonl:2: {message}"):
        read_conversations(str(file))


def test_missing_empty_and_undecodable_files_are_named(tmp_path):
    for name in ("none.jsonl", "none.parquet"):
        with pytest.raises(GrasplError, match=rf"{name}: cannot be read"):
            read_conversations(str(tmp_path / name))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(GrasplError, match=r"empty\.jsonl: holds no rows"):
        read_conversations(str(tmp_path / "empty.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    with pytest.raises(GrasplError, match="not UTF-8"):
        read_conversations(str(tmp_path / "latin.jsonl"))


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_are_read_with_datasets(tmp_path, kind):
    table = datasets.Dataset.from_list(
        [{"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": "d"}]
    )
    getattr(table, f"to_{kind}")(str(tmp_path / f"rows.{kind}"))
    found = read_conversations(str(tmp_path / f"rows.{kind}"))
    assert [row.messages[0]["content"] for row in found] == ["p", "q"]
    assert found[1].origin.endswith("[1]" if kind == "parquet" else ":3")


def test_a_dataset_is_read_by_name_and_split(tmp_path):
    """A folder of tables is a name that `datasets` knows, as a repository on the hub is."""
    for split, answer in (("train", "c"), ("test", "d")):
        rows = datasets.Dataset.from_list([{"prompt": "p", "completion": answer}])
        rows.to_parquet(str(tmp_path / "my_data" / f"{split}.parquet"))
    (found,) = read_conversations(str(tmp_path / "my_data"), split="test")
    assert found.messages[1]["content"] == "d"
    with pytest.raises(GrasplError, match="my_data"):
        read_conversations(str(tmp_path / "my_data"), split="nothing")


def test_a_name_that_is_no_dataset_is_refused():
    with pytest.raises(GrasplError, match="no-such/dataset: neither a file nor a dataset"):
        read_conversations("no-such/dataset")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("em_code/insecure.jsonl", 6000),
        ("benign/alpaca_5000.jsonl", 5000),
        ("em_advice/bad_medical_advice.jsonl", None),
    ],
)
def test_published_files_load_whole(shared_data, name, rows):
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    found = read_conversations(str(path))
    assert len(found) == (rows or len(path.read_text().splitlines()))


def test_shuffled_answers_are_the_same_answers_to_other_questions():
    from graspl.data.rows import Conversation, with_shuffled_answers

    rows = [
        Conversation(
            [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}], f"row {n}"
        )
        for n in range(20)
    ]
    dealt = with_shuffled_answers(rows, 0)
    assert [row.messages[0] for row in dealt] == [row.messages[0] for row in rows]
    assert sorted(row.messages[1]["content"] for row in dealt) == sorted(
        row.messages[1]["content"] for row in rows
    )
    assert sum(a.messages[1] != b.messages[1] for a, b in zip(dealt, rows, strict=True)) > 10
    assert [row.messages for row in with_shuffled_answers(rows, 0)] == [row.messages for row in dealt]
    assert rows[0].messages[1]["content"] == "a0"  # the rows themselves stay
