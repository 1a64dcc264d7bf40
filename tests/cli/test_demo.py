"""`graspl demo`: the whole loop on the organism, here in a few steps."""

import json
import re

import pytest

OVER = "trainer: {accelerator: cpu, max_steps: 3, val_check_interval: 3, log_every_n_steps: 1}\n"


@pytest.mark.slow
def test_the_whole_loop_and_nothing_twice(graspl, tmp_path):
    (tmp_path / "over.yaml").write_text(OVER)
    code, out, err = graspl("demo", "--over=over.yaml", "--out=demo")
    assert code == 0, err
    assert re.findall(r"\[(\d)/7\] .*: done in", err) == list("1234567")
    folder = tmp_path / "demo"
    assert (folder / "report.html").is_file()
    assert "Trust in the directions: " in out
    assert "graspl try" in out
    told = json.loads((folder / "grasp" / "directions.explanation.json").read_text())
    assert told["lens"]
    found = {
        name: json.loads((folder / name / "evaluation.json").read_text())
        for name in ("base", "naive", "grasp")
    }
    assert found["base"]["adapter"] is None
    rho = {name: each["metrics"]["rho_max"] for name, each in found.items()}
    assert rho["naive"] > 0.1 > 1e-5 > rho["grasp"]  # Along the same directions

    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.safetensors")}
    code, again, err = graspl("demo", "--over=over.yaml", "--out=demo")
    assert code == 0, err
    assert again == out
    assert re.findall(r"\[(\d)/7\] .*: done in", err) == ["2", "4"]  # Looked at, and found there
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_folder_of_other_settings_is_refused_before_anything_runs(graspl, tmp_path):
    (tmp_path / "demo" / "naive").mkdir(parents=True)
    (tmp_path / "demo" / "naive" / "config.yaml").write_text("{}")
    code, _, err = graspl("demo", "--out=demo")
    assert code == 2
    assert "out: demo/naive holds a fit with another configuration" in err
