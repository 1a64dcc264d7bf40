"""The figure that a report begins with: which runs it is read from, and when there is none."""

import pytest
from records import make_run, recorded

from graspl.analysis import compare, read_run, removal, removal_sentence, study_removal
from graspl.runs import write_json_atomic, write_json_lines_atomic

CURVES = {"naive": [(0, 0.1, 0.1), (1, 1.0, 0.9)], "grasp": [(0, 0.1, 0.1), (1, 1.0, 0.3)]}


def asked(run, harmful, suite="unrelated"):
    """Give a run 40 questions with so large a share of harmful answers; return it read again."""
    rows = [
        {"suite": suite, "item": str(i), "group": "", "value": harmful + 0.001 * (i % 3)} for i in range(40)
    ]
    write_json_lines_atomic(run.folder.items, rows)
    write_json_atomic(run.folder.evaluation, run.evaluation | {"suites": {suite: {"harmful": harmful}}})
    return read_run(recorded(run.folder.path), run.name)


def runs(root, *, adherence=1.0, coherence=0.9, harmful=(0.1, 0.9, 0.3), **more):
    base = make_run(root / "base", adapter=None, spillover=harmful[0], coherence=coherence, adherence=0.1)
    found = [asked(base, harmful[0], **more)]
    for name, model, share in zip(CURVES, ("LoRALitModule", "GRASPLitModule"), harmful[1:], strict=True):
        end = {"adherence": adherence, "spillover": share, "coherence": coherence}
        run = make_run(root / name, model=model, curve_rows=CURVES[name], **end)
        found.append(asked(run, share, **more))
    return found


def test_past_the_level_the_interval_is_over_questions(tmp_path):
    found = removal(compare(runs(tmp_path)))
    assert found.share == pytest.approx(0.75)
    assert found.low <= found.share <= found.high
    assert (found.method, found.baseline, found.over) == ("grasp", "naive", "40 questions")
    assert "past adherence 0.95 (adherence 1.00 with grasp and 1.00 with naive)" in found.where
    # At the level itself, from the curves
    assert found.beside == "Read at adherence 0.95 exactly, it is 75 %."
    assert "75 % of what naive adds is gone with grasp (95 % interval over 40 questions" in removal_sentence(
        found
    )


def test_runs_that_ended_before_the_level_are_read_at_it(tmp_path):
    found = removal(compare(runs(tmp_path, adherence=0.8)))
    assert (found.share, found.low) == (pytest.approx(0.75), None)
    assert found.where == "at adherence 0.95"
    assert "Where they ended (adherence 0.80 with grasp and 0.80 with naive), it is 75 %" in found.beside
    assert "(one seed, no interval), at adherence 0.95" in removal_sentence(found)


def test_seeds_are_paired_and_their_interval_is_over_seeds(tmp_path):
    read = [make_run(tmp_path / "base", adapter=None, spillover=0.1)]
    for seed, (naive, ours) in enumerate([(0.9, 0.3), (0.7, 0.1), (0.9, 0.5)]):
        for name, model, end in (("naive", "LoRALitModule", naive), ("grasp", "GRASPLitModule", ours)):
            rows = [(0, 0.1, 0.1), (1, 1.0, end)]
            read.append(make_run(tmp_path / f"{name}_{seed}", model=model, curve_rows=rows))
    comparison = compare(read)
    assert list(comparison.methods) == ["base", "naive", "grasp"]
    found = removal(comparison)
    # 1 - 0.2 / 0.8, 1 - 0 / 0.6, 1 - 0.4 / 0.8: each against the naive fit with its own seed
    assert found.share == pytest.approx((0.75 + 1.0 + 0.5) / 3)
    assert found.low < found.share < found.high
    assert found.over == "3 seeds"


@pytest.mark.parametrize(
    ("options", "instead", "reason"),
    [
        ({"coherence": 1e-8}, "cannot be told", "with a probability of only 1e-08"),
        (
            {"harmful": (0.1, 0.1, 0.1)},
            "there is none to remove",
            "no more harmful answers than the base model",
        ),
    ],
)
def test_what_cannot_be_told_is_no_figure(tmp_path, options, instead, reason):
    found = removal(compare(runs(tmp_path, **options)))
    assert found.share is None
    assert found.instead == instead
    assert reason in found.reason
    assert removal_sentence(found).startswith(f"Spill-over removed: {instead}. ")


def test_a_share_needs_runs_to_compare_and_harmful_answers(tmp_path):
    base, _, grasp = runs(tmp_path)
    assert "need a naive fit" in removal(compare([base, grasp])).reason
    without = [
        make_run(tmp_path / f"kl {name}", spillover=None, model=name) for name in ("LoRALitModule", "Other")
    ]
    assert "No suite named `unrelated`" in removal(compare(without)).reason


def test_a_study_is_read_at_the_highest_level_that_tells():
    none = {"mean": None, "low": None, "high": None, "n": 0}
    half = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    levels = {
        "0.90": {"naive": {"removed": half}, "a": {"removed": half}, "b": {"removed": half | {"mean": 0.7}}},
        "0.95": {"naive": {"removed": none}, "a": {"removed": none}, "b": {"removed": none}},
    }
    content = {"levels": levels, "baseline": "naive", "reference": "a"}
    found = study_removal(content)
    assert (found.method, found.share, found.over, found.where) == ("a", 0.5, "3 seeds", "at adherence 0.90")
    best = study_removal(content | {"reference": None})
    assert (best.method, best.where) == ("b", "the best of 2 methods, at adherence 0.90")
    assert study_removal(content | {"levels": {"0.95": levels["0.95"]}}).share is None
