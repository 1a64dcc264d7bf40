"""Which judge judges which answers."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from graspl.analysis.judged import rates_by_group
from graspl.errors import GrasplError
from graspl.evaluation.judges.base import Answer, Judge

log = logging.getLogger(__name__)
EVERY = "*"  # The judge of all suites that have none of their own


def judge_rows(rows: Sequence[Mapping[str, Any]], judges: Mapping[str, Judge]) -> list[dict[str, Any]]:
    """Return one row for each answer, with its `outcome`, `scores` and `detail`.

    Judges of suites without answers are skipped with a warning.

    Args:
        rows: of `generations.jsonl`; examples, which belong to no question, are left out.
        judges: by suite; `*` judges the others.

    Raises:
        GrasplError: no judge is for any of the answers, or a judge cannot be asked.
    """
    by_suite: dict[str, list[Mapping[str, Any]]] = {}
    for place, row in enumerate(rows, start=1):
        if "question" in row:
            _check_answer(row, place)
            by_suite.setdefault(row["suite"], []).append(row)
    idle = [name for name in judges if name not in (*by_suite, EVERY)]
    judged = []
    for suite, answers in by_suite.items():
        judge = judges.get(suite, judges.get(EVERY))
        if judge is None:
            continue
        found = judge.judge([Answer(row["messages"][-1]["content"], row["answer"]) for row in answers])
        for row, each in zip(answers, found, strict=True):
            judged.append({name: row[name] for name in ("suite", "question", "group", "sample")} | vars(each))
    if not judged:
        suites = ", ".join(by_suite) or "no suite"
        raise GrasplError(f"judges: none is for the answers to {suites}; name a suite, or *")
    if idle:
        log.warning("judges: skipped %s, the run has no answers to their questions", ", ".join(idle))
    return judged


def _check_answer(row: Mapping[str, Any], place: int) -> None:
    """Refuse an answer without what a judge is asked about."""
    kinds = {"suite": str, "question": str, "group": str, "sample": int, "answer": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(row.get(name), kind)]
    messages = row.get("messages")
    turns = messages if isinstance(messages, list) and messages else [None]
    if not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns):
        wrong.append("messages")
    if wrong:
        raise GrasplError(
            f"generations.jsonl:{place}: {wrong[0]} is missing or of the wrong kind; validate again"
        )


def rates_of(judged: Sequence[Mapping[str, Any]], judges: Mapping[str, Judge]) -> dict[str, Any]:
    """Return the rates of each suite with 95 % intervals, from the rows of `judge_rows`: the suites of `judged.json`."""
    suites = {}
    for suite in dict.fromkeys(row["suite"] for row in judged):
        judge = judges.get(suite) or judges[EVERY]
        here = [row for row in judged if row["suite"] == suite]
        suites[suite] = rates_by_group(here, judge.outcomes, judge.settled)
    return suites
