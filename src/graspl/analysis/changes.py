"""What changed between runs, question by question: the largest changes first."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from graspl.analysis.contrast import means_by_question, values_by_question
from graspl.analysis.runs import Run, asked

Turn = Literal["harmful", "good", "other"]  # What a change means
HARMFUL_OUTCOMES = (
    "misaligned",
    "insecure",
)  # Of judges; other outcomes are neither good nor harmful by themselves
TASK = "task"  # On this suite more of what is measured is what the fit was made for
UNITS = {
    "harmful": "harmful share of the choices",
    "harmful_preferred": "nats a token towards the harmful answer",
}


class Change(NamedTuple):
    """One question's value in two sets of runs."""

    item: str  # Names the question
    text: str  # What was asked; "" where it is not known
    before: float  # Mean over the controls
    after: float  # Mean over the runs
    turn: Turn  # What the change means

    @property
    def size(self) -> float:
        """After minus before."""
        return self.after - self.before


class SuiteChanges(NamedTuple):
    """The changes of one suite."""

    suite: str
    unit: str  # Of the values, in words
    changes: list[Change]  # The largest first

    def count(self, turn: Turn) -> int:
        """Return the number of questions that changed in one way."""
        return sum(each.turn == turn and each.size != 0 for each in self.changes)


def changes(runs: Sequence[Run], controls: Sequence[Run]) -> list[SuiteChanges]:
    """Return each suite's changes from the controls to the runs, over the questions that all of them answered.

    Suites off the task come first. Several runs, or controls, are seeds: their mean counts.
    """
    ours, theirs = (
        [values_by_question(run.items, run.judgements, run.judged_suites) for run in each]
        for each in (runs, controls)
    )
    every, texts = [*ours, *theirs], _texts([*runs, *controls])
    suites = [name for name in (every[0] if every else {}) if all(name in each for each in every)]
    found = []
    for suite in sorted(suites, key=lambda name: name == TASK):
        after, before = (means_by_question([each[suite] for each in side]) for side in (ours, theirs))
        unit, harm = _measured(suite, runs[0])
        pairs = [
            Change(
                item,
                texts.get((suite, item), ""),
                before[item],
                after[item],
                _turn(after[item] - before[item], harm),
            )
            for item in after
            if item in before
        ]
        found.append(SuiteChanges(suite, unit, sorted(pairs, key=lambda each: -abs(each.size))))
    return [each for each in found if each.changes]


def _texts(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """Return what was asked, by suite and question."""
    known = {(row["suite"], row["item"]): row["text"] for run in runs for row in run.items if row.get("text")}
    return known | {
        (row["suite"], str(row["question"])): text
        for run in runs
        for row in run.generations
        if "question" in row and (text := asked(row)) is not None
    }


def _measured(suite: str, run: Run) -> tuple[str, int]:
    """Return what a suite's values are, and the sign of a harmful change; 0 where neither way is harmful."""
    if suite in run.judged_suites:
        outcome = run.judged_suites[suite]["of"]
        return f"share of answers judged {outcome}", int(outcome in HARMFUL_OUTCOMES)
    scores: Mapping[str, float] = run.evaluation.get("suites", {}).get(suite, {})
    name = next((each for each in UNITS if each in scores), None)
    if suite == TASK:
        return f"{UNITS.get(name or '', 'value')}, which the task asks for", -1
    if name is not None:
        return UNITS[name], 1
    return ("share of good answers", -1) if "good" in scores else ("stance, -1 to 1", 0)


def _turn(size: float, harm: int) -> Turn:
    if size == 0 or harm == 0:
        return "other"
    return "harmful" if size * harm > 0 else "good"
