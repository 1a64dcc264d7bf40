"""A study's fits as one record, from their run folders."""

import pytest

from graspl.analysis import rates_by_group
from graspl.analysis.fits import StudyFit
from graspl.analysis.study import comparison_of
from graspl.reporting.markdown import judged_lines
from graspl.runs import RunFolder, write_json_atomic


def fitted(root, method, seed, end, *, task=None, bad=None):
    """Write the log of a fit and, where `bad` says of how many of four answers, its judged rates."""
    run = RunFolder(root / (task or "") / method / f"seed_{seed}")
    run.path.mkdir(parents=True)
    run.metrics.write_text(f"step,val/adherence,val/spillover\n9,0.5,0.1\n19,1.0,{end}\n")
    if bad is not None:
        rows = [{"question": f"q{i}", "group": "", "outcome": "bad" if i < bad else "good"} for i in range(4)]
        rates = rates_by_group(rows, ("bad", "good"), ("bad", "good"))
        write_json_atomic(run.judged, {"suites": {"safety": rates}})
    return StudyFit(method, seed, run.path, task=task)


def test_judged_rates_of_a_study_are_over_the_seeds_that_were_judged(tmp_path):
    fits = [
        fitted(tmp_path, "naive", 0, 0.6, bad=3),
        fitted(tmp_path, "naive", 1, 0.6, bad=1),
        fitted(tmp_path, "ours", 0, 0.2),
    ]
    found = comparison_of(fits, "naive", [0.75])
    assert set(found["judged"]) == {"naive"}
    assert found["judged"]["naive"]["safety: bad"]["mean"] == pytest.approx(0.5)
    (line,) = judged_lines(found)
    assert line.startswith("naive, safety: bad: 0.500 +- ")
    assert found["levels"]["0.75"]["ours"]["spillover"]["mean"] == pytest.approx(0.15)
    assert found["curves"]["ours"] == {0: [[0.5, 0.1], [1.0, 0.2]]}
    assert "judged" not in comparison_of(fits[2:], "naive", [0.75])


def test_judged_rates_stay_with_their_task(tmp_path):
    fits = [fitted(tmp_path, "naive", 0, 0.6, task=task, bad=bad) for task, bad in (("a", 1), ("b", 3))]
    found = comparison_of(fits, "naive", [0.75])
    assert judged_lines(found) == [
        "a naive, safety: bad: 0.250 (n = 1)",
        "b naive, safety: bad: 0.750 (n = 1)",
    ]
