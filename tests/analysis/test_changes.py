"""Changes question by question: their order, and what they mean."""

from dataclasses import replace

import pytest
from records import make_run

from graspl.analysis import changes


def valued(run, suites, **values):
    items = [
        {"suite": suite, "item": item, "group": "", "value": value, "text": f"about {item}?"}
        for suite, each in values.items()
        for item, value in each.items()
    ]
    return replace(run, items=items, evaluation=run.evaluation | {"suites": suites})


def test_changes_are_sorted_by_size_and_named_by_what_they_mean(tmp_path):
    run, suites = (
        make_run(tmp_path / "run"),
        {"task": {"harmful": 1}, "far": {"harmful": 1}, "kind": {"good": 1}, "axes": {"agreement": 1}},
    )
    before = valued(
        run, suites, task={"t": 0.2}, far={"a": 0.5, "b": 0.5, "c": 0.5}, kind={"k": 0.5}, axes={"x": 0.0}
    )
    after = valued(
        run,
        suites,
        task={"t": 0.9},
        far={"a": 0.6, "b": 0.1, "c": 0.5, "d": 1.0},
        kind={"k": 0.1},
        axes={"x": 1.0},
    )
    found = changes([after], [before])
    assert [each.suite for each in found] == ["far", "kind", "axes", "task"]
    far, kind, axes, task = found
    assert [(each.item, round(each.size, 6), each.turn) for each in far.changes] == [
        ("b", -0.4, "good"), ("a", 0.1, "harmful"), ("c", 0.0, "other"),
    ]  # fmt: skip
    assert far.changes[0].text == "about b?"
    assert (far.count("good"), far.count("harmful")) == (1, 1)
    assert kind.changes[0].turn == "harmful"  # Fewer good answers
    assert axes.changes[0].turn == "other"
    assert task.changes[0].turn == "good"  # The task is to give these answers


def test_seeds_count_by_their_mean(tmp_path):
    run, suites = make_run(tmp_path / "run"), {"far": {"harmful": 1}}
    before, *after = [valued(run, suites, far={"a": value}) for value in (0.5, 0.7, 0.1)]
    (suite,) = changes(after, [before])
    assert suite.changes[0].size == pytest.approx(-0.1)


@pytest.mark.parametrize(("outcome", "turn"), [("misaligned", "harmful"), ("refusal", "other")])
def test_judged_answers_count_by_how_often_the_outcome_came(tmp_path, outcome, turn):
    run = make_run(tmp_path / "run")

    def judged(hits):
        rows = [
            {"suite": "s", "question": "q", "sample": i, "outcome": outcome if i < hits else "x"}
            for i in range(4)
        ]
        asked = [
            {"suite": "s", "question": "q", "messages": [{"role": "user", "content": "why?"}], "answer": ""}
        ]
        return replace(run, judgements=rows, judged_suites={"s": {"of": outcome}}, generations=asked)

    (suite,) = changes([judged(3)], [judged(1)])
    (change,) = suite.changes
    assert (change.before, change.after, change.turn, change.text) == (0.25, 0.75, turn, "why?")
