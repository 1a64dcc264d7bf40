"""Answers and judges brought together: who judges what, and rates over the judgements."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from graspl.errors import GrasplError
from graspl.evaluation.judges.base import Answer, Judge
from graspl.intervals import by_cluster, wilson

EVERY = "*"
"""Names the judge of suites that have none of their own."""


def judge_rows(rows: Sequence[Mapping[str, Any]], judges: Mapping[str, Judge]) -> list[dict[str, Any]]:
    """Return one judgement an answer.

    Args:
        rows: of `generations.jsonl`; examples, which belong to no question, are left out.
        judges: by suite; `*` judges the others.

    Returns:
        Rows with `suite`, `question`, `group`, `sample`, `outcome`, `scores` and `detail`.

    Raises:
        GrasplError: there is nothing to judge, or a judge cannot be asked.
    """
    answers = [row for row in rows if "question" in row]
    suites = list(dict.fromkeys(row["suite"] for row in answers))
    unknown = next((name for name in judges if name not in (*suites, EVERY)), None)
    if unknown is not None:
        raise GrasplError(
            f"judges: no answers to questions of {unknown} were written; there are {suites or 'none at all'}"
        )
    judged = []
    for suite in suites:
        judge = judges.get(suite, judges.get(EVERY))
        if judge is None:
            continue
        of_suite = [row for row in answers if row["suite"] == suite]
        found = judge.judge([Answer(row["messages"][-1]["content"], row["answer"]) for row in of_suite])
        judged += [
            {
                **{name: row[name] for name in ("suite", "question", "group", "sample")},
                "outcome": each.outcome,
                "scores": each.scores,
                "detail": each.detail,
            }
            for row, each in zip(of_suite, found, strict=True)
        ]
    if not judged:
        raise GrasplError(
            f"judges: none is for the suites {', '.join(suites) or '(no questions were answered)'}"
        )
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
