"""A study notices when a file changes that its fits read."""

import pytest
import yaml

from graspl.errors import GrasplError
from graspl.runs import read_json, write_json_atomic
from graspl.studies.inputs import inputs_of
from graspl.studies.plan import DONE, FINGERPRINT, plan_fits


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Make a base configuration that includes a task's file, which names rows, which a fit reads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "medicine.jsonl").write_text("{}\n")
    (tmp_path / "rows" / "text.jsonl").write_text("{}\n")
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({"init_args": {"train": "rows/medicine.jsonl"}}))
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump({"data": "task.yaml", "trainer": {"max_steps": 4}}))
    return tmp_path


def fit_of(files):
    method = {"data": {"init_args": {"text": "rows/{task}.jsonl"}}}
    [fit] = plan_fits(files / "fit.yaml", {"naive": method}, [0], files / "out", {"text": {}}, files / "kept")
    return fit


def finish(fit):
    fit.prepare()
    write_json_atomic(fit.folder / DONE, True)


def test_every_file_that_is_named_is_an_input(files):
    finish(fit_of(files))
    recorded = read_json(fit_of(files).folder / FINGERPRINT, "", "")["inputs"]
    assert {name.rpartition("/")[2] for name in recorded} == {
        "fit.yaml",
        "task.yaml",
        "medicine.jsonl",
        "text.jsonl",
    }
    assert not any(name.startswith("/") for name in recorded)


@pytest.mark.parametrize("name", ["rows/medicine.jsonl", "rows/text.jsonl", "task.yaml"])
def test_changed_study(files, name):
    fit = fit_of(files)
    finish(fit)
    assert fit_of(files).is_done()
    file = files / name
    file.write_text(file.read_text() + "\n")
    with pytest.raises(
        GrasplError, match=rf"out: .* holds a fit with another .*{file.name}; give another --out"
    ):
        fit_of(files).is_done()


def test_changed_study_of_records(files):
    """A record is of the files as they were when the fit began; one without inputs is of its configuration alone."""
    fit = fit_of(files)
    record = {"fingerprint": fit.fingerprint(), "inputs": fit.recorded()["inputs"]}
    fit.kept.parent.mkdir(parents=True)
    write_json_atomic(fit.kept, record)
    assert fit_of(files).is_done()
    (files / "rows" / "text.jsonl").write_text("[]\n")
    with pytest.raises(GrasplError, match=r"kept: .*naive_0\.json is of another .*text\.jsonl; remove it"):
        fit_of(files).is_done()
    write_json_atomic(fit.kept, {"fingerprint": fit.fingerprint()})
    left = fit.kept.with_name(f".{fit.kept.name}.abcd1234")  # By a process that was killed behind its record
    left.mkdir()
    assert fit_of(files).is_done()
    assert not left.exists()


def test_files_that_the_study_makes_are_no_inputs(files):
    made = files / "out" / "first"
    made.mkdir(parents=True)
    (made / "directions.safetensors").write_text("")
    found = inputs_of(files / "fit.yaml", {"model": str(made / "directions.safetensors")}, {"first": made})
    assert "directions.safetensors" not in found


@pytest.mark.parametrize("text", ["a" * 400, "~nobody_at_all/x", "one\ntwo", "", "\0"])
def test_texts_that_are_no_paths_are_no_inputs(files, text):
    assert inputs_of(files / "fit.yaml", {"prompt": text}, {}) == inputs_of(files / "fit.yaml", {}, {})


def test_a_broken_file_is_an_input_too(files):
    (files / "broken.yaml").write_text("a: [")
    assert "broken.yaml" in inputs_of(files / "fit.yaml", {"data": "broken.yaml"}, {})


def test_two_files_of_one_name_both_count(files, tmp_path):
    for folder, content in (("a", "1"), ("b", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(content)
    config = {"one": str(tmp_path / "a" / "rows.jsonl"), "two": str(tmp_path / "b" / "rows.jsonl")}
    before = inputs_of(files / "fit.yaml", config, {})
    (tmp_path / "a" / "rows.jsonl").write_text("3")
    assert inputs_of(files / "fit.yaml", config, {}) != before
