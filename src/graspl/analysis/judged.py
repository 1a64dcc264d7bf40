"""Rates of judged answers, with intervals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from graspl.analysis.intervals import by_cluster, wilson

Judgements = Sequence[Mapping[str, Any]]  # Rows of `judgements.jsonl`
UNJUDGED = ("unparsed", "failed")  # Outcomes of answers that the judge gave no verdict on


def rates(judged: Judgements, outcomes: Sequence[str], settled: Sequence[str]) -> dict[str, Any]:
    """Return how often each outcome came, and the rate of the first one with intervals.

    Returns:
        `answers`, `questions`, `counts` (of every outcome), `of` (the outcome whose rate is given), and its `rate` out of all
        answers with two intervals: `wilson`, and `by_question` over questions (None for one question). `of_settled` has the
        same out of the answers with a verdict; None without any. Where no answer was judged at all, the rate and its
        intervals are None: nothing was measured.
    """
    counts = Counter(row["outcome"] for row in judged)
    decided = [row for row in judged if row["outcome"] in settled]
    return {
        "answers": len(judged),
        "questions": len({row["question"] for row in judged}),
        "counts": {name: counts[name] for name in outcomes},
        "of": outcomes[0],
        **_rate(judged, outcomes[0]),
        "of_settled": _rate(decided, outcomes[0]) if decided else None,
    }


def rates_by_group(judged: Judgements, outcomes: Sequence[str], settled: Sequence[str]) -> dict[str, Any]:
    """Return a suite's `rates`, with those of each group in `groups`; {} where there is one group."""
    names = sorted({row["group"] for row in judged})
    groups = {
        name: rates([row for row in judged if row["group"] == name], outcomes, settled) for name in names
    }
    return {**rates(judged, outcomes, settled), "groups": groups if len(names) > 1 else {}}


def _rate(rows: Judgements, hit: str) -> dict[str, Any]:
    if all(row["outcome"] in UNJUDGED for row in rows):
        return {"n": len(rows), "rate": None, "wilson": None, "by_question": None}
    hits = [float(row["outcome"] == hit) for row in rows]
    score = wilson(int(sum(hits)), len(hits))
    questions = by_cluster(hits, [row["question"] for row in rows])
    known = questions.n > 1
    if known and questions.low == questions.high:
        # Resampling questions with equal rates shows no spread: count each question as one answer
        questions = wilson(round(score.value * questions.n), questions.n)
    return {
        "n": len(rows),
        "rate": score.value,
        "wilson": [score.low, score.high],
        "by_question": [questions.low, questions.high] if known else None,
    }
