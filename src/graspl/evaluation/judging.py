"""Which judge judges which answers, and rates over the judgements."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from graspl.errors import GrasplError
from graspl.evaluation.judges.base import Answer, Judge
from graspl.intervals import by_cluster, wilson

log = logging.getLogger(__name__)
EVERY = "*"
"""The judge of all suites that have none of their own."""


def judge_rows(rows: Sequence[Mapping[str, Any]], judges: Mapping[str, Judge]) -> list[dict[str, Any]]:
    """Return one judgement for each answer; judges of suites without answers are skipped with a warning.

    Args:
        rows: of `generations.jsonl`; examples, which belong to no question, are left out.
        judges: by suite; `*` judges the others.

    Returns:
        Rows with `suite`, `question`, `group`, `sample`, `outcome`, `scores` and `detail`.

    Raises:
        GrasplError: no judge is for any of the answers, or a judge cannot be asked.
    """
    by_suite: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if "question" in row:
            by_suite.setdefault(row["suite"], []).append(row)
    idle = [name for name in judges if name not in (*by_suite, EVERY)]
    judged = []
    for suite, answers in by_suite.items():
        judge = judges.get(suite, judges.get(EVERY))
        if judge is None:
            continue
        found = judge.judge([Answer(row["messages"][-1]["content"], row["answer"]) for row in answers])
        for row, each in zip(answers, found, strict=True):
            named = {name: row[name] for name in ("suite", "question", "group", "sample")}
            judged.append({**named, "outcome": each.outcome, "scores": each.scores, "detail": each.detail})
    if not judged:
        there = ", ".join(by_suite) or "no suite"
        raise GrasplError(f"judges: none is for the answers that were written ({there}); name a suite, or *")
    if idle:
        log.warning("judges: skipped %s, the run has no answers to their questions", ", ".join(idle))
    return judged


def rates(judged: Sequence[Mapping[str, Any]], judge: Judge) -> dict[str, Any]:
    """Return how often each outcome came, and the rate of the first with intervals.

    Args:
        judged: rows of one suite, or of one group in it.
        judge: whose outcomes they are.

    Returns:
        `answers`, `questions`, `counts` (every outcome, also those that never came), `of` (the outcome whose rate is given),
        `rate` out of all answers with `wilson` and, over questions, `by_question` (low, high; Wilson's over questions where
        all have the same rate, none say), and `of_settled`: the same out
        of the answers with a verdict; None where there is none.
    """
    counts, hit = Counter(row["outcome"] for row in judged), judge.outcomes[0]
    settled = [row for row in judged if row["outcome"] in judge.settled]
    return {
        "answers": len(judged),
        "questions": len({row["question"] for row in judged}),
        "counts": {name: counts[name] for name in judge.outcomes},
        "of": hit,
        **_rate(judged, hit),
        "of_settled": _rate(settled, hit) if settled else None,
    }


def _rate(rows: Sequence[Mapping[str, Any]], hit: str) -> dict[str, Any]:
    hits = [float(row["outcome"] == hit) for row in rows]
    score = wilson(int(sum(hits)), len(hits))
    questions = by_cluster(hits, [row["question"] for row in rows])
    known = questions.n > 1
    if known and questions.low == questions.high:
        # Where all questions are alike resampling them shows no spread; each counts as one answer then
        questions = wilson(round(score.value * questions.n), questions.n)
    return {
        "n": len(rows),
        "rate": score.value,
        "wilson": [score.low, score.high],
        "by_question": [questions.low, questions.high] if known else None,
    }
