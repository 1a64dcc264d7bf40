"""A study's scores of choice, its records, and answers judged where a fit ends."""

import json
import shutil

import pytest
from conftest import CHAT_ROWS

from graspl.analysis.fits import Measured, StudyFit, at_level, read_log
from graspl.errors import GrasplError
from graspl.runs import RunFolder, read_json, write_json_atomic
from graspl.studies.kept import keep


def suites(write_rows):
    """Return suites of pairs, of text and of questions, and a callback that judges the answers."""
    pair = {"class_path": "graspl.data.suites.AnswerPairs"}
    good = write_rows([{**row, "completion": "you should take one pills"} for row in CHAT_ROWS], "good.jsonl")
    harmful = write_rows(CHAT_ROWS, "harmful.jsonl")
    asked = write_rows([{"id": "a", "question": "how do i open the file"}], "asked.jsonl")
    own = {
        "task": pair | {"init_args": {"harmful": str(harmful), "good": str(good), "limit": 6}},
        "far": pair | {"init_args": {"harmful": str(harmful), "good": str(good), "limit": 9}},
        "free": {"class_path": "graspl.data.suites.FreeFormQuestions", "init_args": {"source": str(asked)}},
    }
    words = {"class_path": "graspl.evaluation.judges.Matches", "init_args": {"pattern": "."}}
    judge = {
        "class_path": "graspl.callbacks.JudgeAnswers",
        "init_args": {"judges": {"*": words}, "every_validation": True},
    }
    model = {"init_args": {"measure_kl": False}}
    return {"data": {"init_args": {"suites": own}}, "model": model, "trainer": {"callbacks": [judge]}}


@pytest.mark.slow
def test_a_record_stands_for_a_fit_on_another_machine(graspl, study, write_rows, tmp_path):
    options = {
        "without": ("broken",),
        "shared": suites(write_rows),
        "seeds": [0],
        "kept": "kept",
        "levels": [0.02],
        "levels_of": "baseline",
        "measured": {
            "adherence": "task/margin",
            "spillover": "far/margin",
            "others": ["unrelated/loss", "free/judged"],
        },
    }
    code, _, err = graspl(*study(**options))
    assert code == 0, err
    first = json.loads((tmp_path / "study" / "comparison.json").read_text())
    record = json.loads((tmp_path / "kept" / "naive_0.json").read_text())
    assert record["seeds"] == [0]
    assert record["figures"]["method"] == "naive"
    assert record["figures"]["judged"]["free"]["of"] == "hit"
    assert first["judged"]["naive"]["free: hit"]["n"] == 1
    assert record["figures"]["rows"][-1]["val/free/judged"] == record["figures"]["judged"]["free"]["rate"]
    last = record["figures"]["rows"][-1]
    assert {"val/free/base_judged", "val/far/base_margin"} <= set(last)
    assert "val/far/kl" not in last
    found = first["levels"]["0.02"]["naive"]
    assert found["free/judged_change"]["n"] == 1
    assert found["removed"]["n"] == found["unrelated/loss_change"]["n"] == 1
    assert "unrelated/loss change" in (tmp_path / "study" / "comparison.md").read_text()
    # Elsewhere: no run folder, and nothing is run
    shutil.rmtree(tmp_path / "study")
    code, _, err = graspl(*study(**options))
    assert code == 0, err
    assert "2 fits, 2 of them done already" in err
    again = json.loads((tmp_path / "study" / "comparison.json").read_text())
    assert again["levels"]["0.02"]["naive"]["step"] == found["step"]
    assert again["levels"]["0.02"]["naive"]["removed"]["mean"] == pytest.approx(
        found["removed"]["mean"], abs=0.02
    )
    assert again["judged"] == first["judged"]
    # A record of another configuration does not pass for this one
    code, _, err = graspl(*study(**options | {"base_model": "organism"}))
    assert code == 2
    assert "naive_0.json is of another configuration; remove it" in err


def logged(root, method, rows):
    """Write a log with two suites of pairs, and return the fit."""
    run = RunFolder(root / method)
    run.path.mkdir()
    lines = ["step,val/adherence,val/task/margin,val/task/base_margin,val/near/margin,val/near/base_margin"]
    lines += [f"{step},1.0,{task},-1.0,{near},-2.0" for step, task, near in rows]
    run.metrics.write_text("\n".join(lines) + "\n")
    return StudyFit(method, 0, run.path)


def test_other_scores_stand_for_adherence_and_spill_over(tmp_path):
    fits = {
        "naive": logged(tmp_path, "naive", [(1, 0.0, -1.0), (3, 1.0, 2.0)]),
        "ours": logged(tmp_path, "ours", [(1, 0.0, -2.0), (3, 1.0, -1.0)]),
    }
    measured = Measured("task/margin", "near/margin", ["near/margin"])
    logs = {name: {0: read_log(fit, measured)} for name, fit in fits.items()}
    base = {"adherence": -1.0, "spillover": -2.0, "near/margin": -2.0}
    found = at_level(logs, "naive", base, 1.0, others=measured.others)["ours"]["seeds"][0]
    assert found["step"] == 4
    assert found["excess"] == pytest.approx(1.0)
    assert found["removed"] == found["near/margin_removed"] == pytest.approx(1 - 1 / 4)
    assert found["near/margin_change"] == pytest.approx(1.0)


def test_a_score_that_nobody_measured_is_refused(tmp_path):
    fit = logged(tmp_path, "naive", [(1, 0.0, 0.0)])
    with pytest.raises(
        GrasplError, match="spillover: no fit measured far/margin; take one of near/base_margin, near/ma"
    ):
        read_log(fit, Measured(spillover="far/margin"))


def test_a_record_holds_what_a_null_space_foresaw(tmp_path):
    run = RunFolder(tmp_path / "fit")
    sites = {"sites": {"q_proj": {"typical": 0.2}}}
    text = {
        "typical": 0.3,
        **sites,
        "before training": {"typical": 0.25, "outlook": "likely to hold", **sites},
    }
    write_json_atomic(run.null_space, {"kind": "contrastive", "A moved": 0.0, "text": text})
    run.metrics.write_text("step,val/spillover\n1,0.5\n")
    keep(StudyFit("null_space", 0, run.path), tmp_path / "kept.json", {}, 1.0)
    foreseen = {"typical": 0.25, "outlook": "likely to hold"}
    assert read_json(tmp_path / "kept.json", "fit", "")["figures"]["null_space"] == {
        "text": {"typical": 0.3, "before training": foreseen}
    }


def test_a_broken_record_is_named(tmp_path):
    write_json_atomic(tmp_path / "naive_0.json", {"figures": 3})
    fit = StudyFit("naive", 0, tmp_path / "none", kept=tmp_path / "naive_0.json")
    with pytest.raises(GrasplError, match=r"naive_0\.json: .*remove it"):
        read_log(fit)
