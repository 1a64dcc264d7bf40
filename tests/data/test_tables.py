import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graspl.data import read_table
from graspl.data.tables import field
from graspl.errors import GrasplError

CONTENTS = {
    "t.jsonl": '{"a": "1"}\n\n{"a": "2"}\n',
    "t.json": '[{"a": "1"}, {"a": "2"}]',
    "lines.json": '{"a": "1"}\n{"a": "2"}\n',
    "t.yaml": "- a: '1'\n- a: '2'\n",
    "t.csv": 'a,b\n1,"x, y\nz"\n2,w\n',
    "t.tsv": 'a\tb\n1\tsaid "no\n2\tw\n',
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_kind_of_file_gives_its_rows(tmp_path, name):
    (tmp_path / name).write_text(CONTENTS[name])
    rows = list(read_table(str(tmp_path / name)))
    assert [row["a"] for _, row in rows] == ["1", "2"]
    assert all(name in origin for origin, _ in rows)


def test_origins_are_lines_where_there_are_lines(tmp_path):
    for name, lines in (("t.jsonl", [1, 3]), ("t.csv", [3, 4]), ("t.tsv", [2, 3])):
        (tmp_path / name).write_text(CONTENTS[name])
        assert [origin.rsplit(":", 1)[1] for origin, _ in read_table(str(tmp_path / name))] == [
            str(n) for n in lines
        ]


def test_a_mapping_with_rows_gives_each_row_what_else_it_says(tmp_path):
    (tmp_path / "r.json").write_text('{"name": "n", "samples": [{"a": 1}, {"a": 2}]}')
    assert [row for _, row in read_table(str(tmp_path / "r.json"))] == [
        {"name": "n", "a": 1},
        {"name": "n", "a": 2},
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.jsonl", '{"a": 1}\n{"a": \n', r"t\.jsonl:2: not JSON"),
        ("t.json", '[\n{"a": 1},\n{"a" 2}]', r"t\.json:3: not JSON"),
        ("t.yaml", "- a: 1\n- b: [\n", r"t\.yaml:\d+: not YAML"),
        ("t.yaml", "just text", r"t\.yaml: must hold a list of rows"),
        ("t.yaml", "- !!python/object:os.system {}\n", r"t\.yaml.*not YAML"),
        ("t.csv", "a,b\n1,2\n1\n", r"t\.csv:3: has 1 cells, the header 2"),
        ("t.csv", "", r"t\.csv: is empty"),
        ("t.csv", 'a\n"open', r"t\.csv:2: "),
        ("t.jsonl", b"\xff\xfe", r"t\.jsonl: is not UTF-8"),
        ("t.jsonl", "[" * 100_000, r"t\.jsonl:1: not JSON"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GrasplError, match=told):
        list(read_table(str(path)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GrasplError, match=r"no\.csv: cannot be read"):
        list(read_table(str(tmp_path / "no.csv")))


def test_a_field_that_is_missing_or_no_text_is_named():
    assert field({"a": "x"}, "a", "f:1") == "x"
    with pytest.raises(GrasplError, match=r"f:1: a is missing; the row has \['b'\]"):
        field({"b": "x"}, "a", "f:1")
    with pytest.raises(GrasplError, match=r"f:1: a must be text"):
        field({"a": 3}, "a", "f:1")
    with pytest.raises(GrasplError, match=r"f:1: must be a mapping"):
        field(["a"], "a", "f:1")


@given(
    content=st.binary(max_size=60),
    name=st.sampled_from(["t.jsonl", "t.json", "t.yaml", "t.csv", "t.tsv", "t.txt"]),
)
def test_no_bytes_give_anything_but_rows_or_one_clear_error(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    try:
        rows = list(read_table(str(path)))
    except GrasplError as error:
        told = str(error)
    else:
        told = name
        assert all(isinstance(origin, str) for origin, _ in rows)
    assert name in told


@given(rows=st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.text()}), min_size=1, max_size=4))
def test_what_was_written_as_json_lines_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row for _, row in read_table(str(path))] == rows
