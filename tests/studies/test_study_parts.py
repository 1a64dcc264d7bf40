"""A study that several processes run together, each a part of its fits."""

import os
import subprocess
import sys

import pytest
import yaml
from filelock import FileLock

from graspl.errors import GrasplError
from graspl.studies import steps
from graspl.studies.claims import alone, beside_others
from graspl.studies.parts import Part
from graspl.studies.plan import plan_fits


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "1.0/2"])
def test_what_is_no_part_is_refused(graspl, study, text, tmp_path):
    code, _, err = graspl(*study(part=text))
    assert code == 2
    assert f"part: {text!r} is no part; give e.g. 3/8" in err
    assert not (tmp_path / "study").exists()


def test_ray_needs_no_parts(graspl, study):
    code, _, err = graspl(*study(part="1/2", engine="ray"))
    assert code == 2
    assert "part: Ray shares the fits out by itself" in err


@pytest.mark.parametrize("total", [1, 2, 3, 20])
def test_every_fit_is_in_one_part_and_with_those_that_it_is_made_from(tmp_path, total):
    (tmp_path / "fit.yaml").write_text("{}")
    methods = {
        "late": {"data": {"a": "{fit:first}", "b": "{fit:second}"}}, "first": {}, "alone": {}, "second": {},
        "other": {"data": "{fit:first}"},
    }  # fmt: skip
    fits = plan_fits(tmp_path / "fit.yaml", methods, [0, 1, 2], tmp_path / "out", {"x": {}, "y": {}})
    parts = [Part(number, total).among(fits) for number in range(1, total + 1)]
    assert sorted(fit.name for part in parts for fit in part) == sorted(fit.name for fit in fits)
    for part in parts:
        folders = {fit.folder for fit in part}
        assert all(folders >= set(fit.made_from.values()) for fit in part)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 4
    # In the order of the plan, as each process runs them
    assert all(part == [fit for fit in fits if fit in part] for part in parts)


def test_parts_run_beside_one_another_and_a_whole_study_beside_none(tmp_path, monkeypatch):
    def refused(inner, outer, words):
        with outer(tmp_path), pytest.raises(GrasplError, match=words), inner(tmp_path):
            pass

    monkeypatch.setattr("graspl.studies.claims.WAIT", 0.1)
    with beside_others(tmp_path):
        refused(alone, beside_others, "another process runs a part of the study")
    refused(beside_others, alone, "another process is writing")
    # A process that was killed leaves its file without a lock
    (tmp_path / ".part.0123abcd").touch()
    with alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_fit_that_another_process_has_or_has_done_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "fit.yaml").write_text("{}")
    (fit,) = plan_fits(tmp_path / "fit.yaml", {"m": {}}, [0], tmp_path / "out")
    ran = []

    def run(fit):
        ran.append(fit)
        fit.prepare()
        fit.mark_done(1.0)

    monkeypatch.setattr(steps, "run_step", run)
    fit.folder.parent.mkdir(parents=True)
    with FileLock(fit.folder.parent / ".seed_0.claimed"):
        assert steps.run_claimed(fit) == steps.ELSEWHERE
    assert ran == []
    assert steps.run_claimed(fit) is None
    assert steps.run_claimed(fit) is None
    assert ran == [fit]
    assert not list(fit.folder.parent.glob(".*"))


def start(command, folder):
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_parts_at_once_make_the_table_of_one_process(graspl, study, tmp_path):
    """The second part is started twice, as by two submissions: no fit is done twice."""
    given = study(seeds=[0], without=["broken"])
    code, _, err = graspl(*given, "--out", "whole")
    assert code == 0, err
    command = [sys.executable, "-m", "graspl", *given, "--part"]
    running = [start([*command, part], tmp_path) for part in ("1/2", "2/2", "2/2")]
    said = [each.communicate(timeout=300)[1] for each in running]
    assert [each.returncode for each in running] == [0, 0, 0], said
    for method in ("naive", "grasp"):
        commands = yaml.safe_load((tmp_path / "study" / method / "seed_0" / "run.json").read_text())[
            "commands"
        ]
        assert [each["status"] for each in commands] == ["complete"]
    assert not (tmp_path / "study" / "comparison.json").exists()
    code, _, err = graspl(*given)
    assert code == 0, err
    assert "2 fits, 2 of them done already" in err
    whole, parts = tmp_path / "whole", tmp_path / "study"
    for name in ("comparison.json", "comparison.md", "comparison.csv", "comparison.svg"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    commands = yaml.safe_load((parts / "run.json").read_text())["commands"]
    assert [each["status"] for each in commands] == ["complete"] * 4
    assert not list(parts.rglob(".*"))
