import json

import pytest

from graspl.errors import GrasplError
from graspl.runs import RunFolder, atomic_path, write_json_atomic, write_text_atomic


def test_a_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "sub" / "file.txt"
    with pytest.raises(ZeroDivisionError), atomic_path(target) as scratch:
        scratch.write_text(str(1 / 0) if scratch.write_text("half") else "")
    assert list((tmp_path / "sub").iterdir()) == []
    write_text_atomic(target, "whole")
    write_text_atomic(target, "again")
    assert target.read_text() == "again"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("one", "two"):
        with atomic_path(tmp_path / "adapter") as scratch:
            scratch.mkdir()
            (scratch / content).write_text(content)
    assert [p.name for p in (tmp_path / "adapter").iterdir()] == ["two"]


def test_colleagues_can_read_what_they_could_read_of_any_file(tmp_path):
    (tmp_path / "any").write_text("")
    with atomic_path(tmp_path / "adapter") as scratch:
        scratch.mkdir()
        (scratch / "weights").touch(mode=0o600)
    assert (tmp_path / "adapter" / "weights").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GrasplError, match="cannot be written"):
        write_text_atomic(tmp_path / "file" / "x.txt", "")


def test_nan_does_not_enter_a_json_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_reads_back_what_is_there(tmp_path):
    run = RunFolder(tmp_path)
    assert not run.is_used()
    assert run.read_metrics() == run.read_generations() == []
    with pytest.raises(GrasplError, match="graspl validate"):
        run.read_evaluation()
    run.metrics.write_text("step,val/spillover\n0,\n1,0.5\n")
    run.generations.write_text(json.dumps({"suite": "task"}) + "\n")
    run.evaluation.write_text("{}")
    run.config.write_text("")
    assert run.read_metrics() == [{"step": 0.0}, {"step": 1.0, "val/spillover": 0.5}]
    assert run.read_generations() == [{"suite": "task"}]
    assert run.read_evaluation() == {}
    assert run.is_used()


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("evaluation.json", "{", "read_evaluation"),
        ("metrics.csv", "step\nx\n", "read_metrics"),
        ("generations.jsonl", "{\n", "read_generations"),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, read):
    (tmp_path / name).write_text(text)
    with pytest.raises(GrasplError, match=name):
        getattr(RunFolder(tmp_path), read)()
