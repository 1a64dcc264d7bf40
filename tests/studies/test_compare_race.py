"""One study that is started twice in one folder: the second process is refused, and nothing of the first is lost."""

import csv
import json
import os
import subprocess
import sys

import pytest

from graspl.runs import claimed


@pytest.mark.slow
def test_compare_race(graspl, study, tmp_path):
    """Both begin before the first checkpoint, where a fit without one is taken for a stopped fit and removed."""
    given = study(seeds=[0], without=["broken"])
    code, _, err = graspl(*given, "--out", "whole")
    assert code == 0, err
    command = [sys.executable, "-m", "graspl", *given, "--out", "twice"]
    started = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [each.communicate(timeout=300)[1] for each in started]
    codes = sorted(each.returncode for each in started)
    assert codes == [0, 2], said
    refused = next(text for each, text in zip(started, said, strict=True) if each.returncode == 2)
    assert refused.splitlines() == [
        "graspl: error: out: another process is writing to twice; wait for it, or give another folder"
    ]
    whole, twice = (tmp_path / name for name in ("whole", "twice"))
    for name in ("comparison.json", "comparison.md", "comparison.csv", "comparison.svg"):
        assert (twice / name).read_bytes() == (whole / name).read_bytes(), name
    for method in ("naive", "grasp"):
        fits = [folder / method / "seed_0" for folder in (whole, twice)]
        weights = [(fit / "adapter" / "adapter_model.safetensors").read_bytes() for fit in fits]
        assert weights[0] == weights[1]
        logged = [list(csv.DictReader((fit / "metrics.csv").read_text().splitlines())) for fit in fits]
        assert [row["step"] for row in logged[0]] == [row["step"] for row in logged[1]]
    assert not list(twice.rglob(".*"))


def test_a_study_in_a_folder_that_another_process_has_changes_nothing(graspl, study, tmp_path):
    given = study(seeds=[0], without=["broken"])
    with claimed(tmp_path / "study"):
        fit = tmp_path / "study" / "naive" / "seed_0"
        fit.mkdir(parents=True)
        (fit / "study.json").write_text(json.dumps("theirs"))
        code, _, err = graspl(*given)
        assert code == 2
        assert "out: another process is writing to study" in err
        assert [path.name for path in fit.rglob("*")] == ["study.json"]
    assert not (tmp_path / "study" / "comparison.json").exists()
