"""One study that is started twice in one folder: the second process is refused, and nothing of the first is lost."""

import csv
import json
import os
import subprocess
import sys

import pytest

from graspl.runs import claimed


def both_started(command, folder):
    """Start a study twice at once, and return the exit codes and what the refused one said, if one was."""
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [each.communicate(timeout=300)[1] for each in started]
    refused = [text for each, text in zip(started, said, strict=True) if each.returncode == 2]
    return sorted(each.returncode for each in started), "".join(refused).splitlines()


def times_at_once(times, graspl, study, folder):
    """Start a study twice at once, again and again, and compare each with an undisturbed one."""
    given = study(seeds=[0], without=["broken"])
    code, _, err = graspl(*given, "--out", "whole")
    assert code == 0, err
    for time in range(times):
        out = f"twice_{time}"
        codes, refused = both_started([sys.executable, "-m", "graspl", *given, "--out", out], folder)
        assert codes == [0, 2], refused
        assert refused[-1:] == [
            f"graspl: error: out: another process is writing to {out}; wait for it, or give another folder"
        ]
        whole, twice = folder / "whole", folder / out
        for name in ("comparison.json", "comparison.md", "comparison.csv", "comparison.svg"):
            assert (twice / name).read_bytes() == (whole / name).read_bytes(), name
        for method in ("naive", "grasp"):
            fits = [each / method / "seed_0" for each in (whole, twice)]
            weights = [(fit / "adapter" / "adapter_model.safetensors").read_bytes() for fit in fits]
            assert weights[0] == weights[1]
            logged = [list(csv.DictReader((fit / "metrics.csv").read_text().splitlines())) for fit in fits]
            assert [row["step"] for row in logged[0]] == [row["step"] for row in logged[1]]
        assert not list(twice.rglob(".*"))


@pytest.mark.slow
def test_compare_race(graspl, study, tmp_path):
    """Both begin before the first checkpoint, where a fit without one is taken for a stopped fit and removed."""
    times_at_once(1, graspl, study, tmp_path)


@pytest.mark.thorough
def test_compare_race_ten_times(graspl, study, tmp_path):
    """One may begin at any moment of the other."""
    times_at_once(10, graspl, study, tmp_path)


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
