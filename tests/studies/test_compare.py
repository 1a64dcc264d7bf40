"""`graspl compare` on a tiny model: what it runs, what it writes, and how it goes on."""

import csv
import json
import shutil

import pytest
import yaml

from graspl.errors import GrasplError
from graspl.studies.plan import plan_fits


def belongs_to_its_fits(graspl, study, tmp_path):
    """Check that the table counts only while the fits' files are those that it was made from."""
    code, out, _ = graspl("verify", "study")
    assert code == 0, out
    assert "study/comparison.csv: as it was made" in out
    assert "study/run.json: compare: complete" in out
    metrics = tmp_path / "study" / "naive" / "seed_0" / "metrics.csv"
    whole = metrics.read_text()
    metrics.write_text(whole.replace("0.0", "0.1", 1))
    code, out, _ = graspl("verify", "study")
    assert code == 1
    assert (
        "study/comparison.json: was made from another fit (./naive/seed_0/metrics.csv: metrics.csv has changed)"
        in out
    )
    code, _, err = graspl(*study())
    assert code == 0, err
    failed = json.loads((tmp_path / "study" / "comparison.json").read_text())["failed"]
    assert "metrics.csv: is not as it was written" in failed["naive, seed 0"]
    metrics.write_text(whole)


@pytest.mark.slow
def test_a_study_runs_what_is_missing_and_goes_on_where_it_stopped(graspl, study, tmp_path):
    code, _, err = graspl(*study())
    assert code == 0, err
    assert "broken, seed 0: failed: none.safetensors" in err
    written = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert set(written["failed"]) == {"broken, seed 0", "broken, seed 1"}
    found = written["levels"]["0.02"]
    assert set(found) == {"naive", "grasp"}
    assert found["grasp"]["step"]["n"] == 2
    rows = list(csv.DictReader((tmp_path / "study" / "comparison.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == {"naive", "grasp"}
    assert (tmp_path / "study" / "comparison.svg").read_text().startswith("<svg")
    config = yaml.safe_load((tmp_path / "study" / "naive" / "seed_1" / "config.yaml").read_text())
    assert config["seed_everything"] == config["data"]["init_args"]["seed"] == 1
    # What is done is not done again, what was stopped half-way is
    kept = tmp_path / "study" / "naive" / "seed_0" / "adapter" / "adapter_model.safetensors"
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    again = tmp_path / "study" / "grasp" / "seed_1"
    old = (again / "adapter" / "adapter_model.safetensors").read_bytes()
    (again / "study_done.json").unlink()
    shutil.rmtree(again / "adapter")
    shutil.rmtree(again / "checkpoints")
    code, _, err = graspl(*study())
    assert code == 0, err
    assert "6 fits, 3 of them done already" in err
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
    assert (again / "adapter" / "adapter_model.safetensors").read_bytes() == old
    assert json.loads((tmp_path / "study" / "comparison.json").read_text())["levels"] == written["levels"]
    belongs_to_its_fits(graspl, study, tmp_path)
    # Another configuration does not pass for this one
    code, _, err = graspl(*study(base_model="organism"))
    assert code == 2
    assert "holds a fit with another configuration" in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fit": "none.yaml"}, "no file none.yaml"),
        ({"methods": {}}, "baseline: naive"),
        ({"baseline": "other"}, "baseline: other"),
        ({"seeds": []}, "at least one method and one seed"),
        ({"jobs": 0}, "jobs"),
        ({"fast": True, "fast_methods": ["other"]}, "fast_methods: other"),
        ({"methods": {"naive": {}, "a/b": {}}}, "methods: 'a/b' cannot name a folder"),
        ({"tasks": {"..": {}}}, "tasks: '..' cannot name a folder"),
        ({"reference": "other"}, "reference: other"),
        ({"methods": {"naive": {}, "tuning": {}}}, "methods: 'tuning' cannot name a folder"),
        (
            {"methods": {"naive": {}, "b": {"data": "{fit:c}/x"}}},
            "methods.b: is made from c, which is not among",
        ),
        (
            {"methods": {"naive": {}, "a": {"data": "{fit:naive}"}, "b": {"data": ["{fit:a}"]}}},
            "methods.b: is made from a, which is made from another",
        ),
        ({"methods": {"naive": {"tune": [1]}}}, "methods.naive.tune: give a mapping, not [1]"),
        ({"methods": {"naive": {"needs": 3}}}, "methods.naive.needs: give a text"),
        ({"methods": {"naive": 3}}, "methods.naive: give a configuration"),
        ({"tuning": {"trials": 1, "seeds": [0]}}, "tuning.seeds: 0 is among seeds"),
    ],
)
def test_a_plan_that_cannot_be_carried_out(graspl, study, changes, words, tmp_path):
    code, _, err = graspl(*study(**changes))
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_the_seed_goes_wherever_the_configuration_says(tmp_path):
    base = tmp_path / "fit.yaml"
    base.write_text("{}")
    first, second = plan_fits(base, {"m": {"model": {"a": ["{seed}", 3]}}}, [4, 5], tmp_path / "out")
    arguments = second.prepare()
    assert yaml.safe_load(second.own_config.read_text()) == {"model": {"a": [5, 3]}, "seed_everything": 5}
    assert f"--trainer.default_root_dir={second.folder}" in arguments
    assert first.fingerprint() != second.fingerprint()
    assert not second.is_done()


def test_a_fit_comes_after_those_that_it_is_made_from(tmp_path):
    base = tmp_path / "fit.yaml"
    base.write_text("{}")
    methods = {
        "late": {"data": {"adapter": "{fit:first}/adapter", "name": "run {seed} of {task}"}},
        "first": {},
    }
    late, first = plan_fits(base, methods, [4], tmp_path / "out", {"t": {}})
    assert late.made_from == {"first": first.folder}
    late.prepare()
    written = yaml.safe_load(late.own_config.read_text())
    assert written["data"] == {"adapter": str(first.folder / "adapter"), "name": "run 4 of t"}


def test_a_folder_that_was_killed_at_birth_is_begun_again(tmp_path):
    base = tmp_path / "fit.yaml"
    base.write_text("{}")
    (fit,) = plan_fits(base, {"m": {}}, [0], tmp_path / "out")
    (fit.folder / ".study.json.x1").mkdir(parents=True)
    assert not fit.is_done()
    fit.prepare()
    assert sorted(path.name for path in fit.folder.iterdir()) == ["study.json"]
    (fit.folder / "adapter").mkdir()  # written, but files that come after it may be missing
    assert not fit.is_done()
    fit.mark_done(1.0)
    assert fit.is_done()
    fit.folder.joinpath("study.json").unlink()
    with pytest.raises(GrasplError, match="holds a fit with another configuration"):
        fit.is_done()


def test_a_task_is_put_over_every_method(tmp_path):
    base = tmp_path / "fit.yaml"
    base.write_text("{}")
    methods = {"m": {"model": {"class_path": "M", "init_args": {"r": 2, "base_model": "x"}}}}
    tasks = {"one": {"model": {"init_args": {"base_model": "y"}}, "data": {"topic": "z"}}, "two": {}}
    one, two = plan_fits(base, methods, [0], tmp_path / "out", tasks)
    assert one.config == {
        "model": {"class_path": "M", "init_args": {"r": 2, "base_model": "y"}},
        "data": {"topic": "z"},
    }
    assert two.config == methods["m"]
    assert one.folder == tmp_path / "out" / "one" / "m" / "seed_0"
    assert one.name == "one, m, seed 0"


@pytest.mark.slow
def test_a_study_of_several_tasks(graspl, study, tmp_path):
    tasks = {"first": {}, "second": {"data": {"init_args": {"batch_size": 2}}}}
    code, _, err = graspl(*study(tasks=tasks, seeds=[0], reference="grasp"))
    assert code == 0, err
    assert "first, broken, seed 0: failed" in err
    written = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert set(written["tasks"]) == set(tasks)
    found = written["levels"]["0.02"]["grasp"]
    assert (found["fits"], found["reached"], found["step"]["n"]) == (2, 2, 2)
    means = [written["tasks"][task]["levels"]["0.02"]["grasp"]["step"]["mean"] for task in tasks]
    assert found["step"]["mean"] == pytest.approx(sum(means) / 2)
    rows = list(csv.DictReader((tmp_path / "study" / "comparison.csv").read_text().splitlines()))
    assert {row["task"] for row in rows} == {"", *tasks}
    assert (tmp_path / "study" / "comparison.svg").read_text().startswith("<svg")
    page = (tmp_path / "study" / "comparison.html").read_text()
    assert "failed: first, broken, seed 0: none.safetensors" in page
    assert '"steps-loss"' in page
    config = yaml.safe_load((tmp_path / "study" / "second" / "grasp" / "seed_0" / "config.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 2
