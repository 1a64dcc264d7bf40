"""The figures of one run, each with its interval and the base model's."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from graspl.analysis.intervals import Interval, by_cluster
from graspl.analysis.runs import FEWEST_GROUPS, Run
from graspl.analysis.scores import SPILLOVER_SCORES, TASK_SCORES, first_of

# Scores whose mean over questions `items.jsonl` allows, in place of the headline's, and each question's share of it
BY_ITEM: dict[str, tuple[str, Callable[[float], float]]] = {
    "harmful": ("harmful_of_choices", float),
    "good": ("good_of_choices", float),
    "harmful_preferred": ("harmful_preferred", lambda margin: (margin > 0) + 0.5 * (margin == 0)),
}

ROUNDING = 1e-5  # Between a score and the mean of the values by question


class Figure(NamedTuple):
    """What was measured of a run."""

    name: str  # `adherence`, `spillover`, `coherence` or `kl`
    suite: str  # On which it was measured
    score: str  # Name of the score, e.g. `harmful_of_choices`
    value: float  # Of the fine-tuned model
    base: float | None  # Of the base model; None where it has none, as a divergence from itself
    interval: Interval | None  # 95 % over questions; None where nothing is known by question


def figures_of(run: Run) -> list[Figure]:
    """Return adherence and spill-over with intervals over questions where they are known by question, coherence and kl.

    With an interval, a share is that of the answers to choose from (`harmful_of_choices`), which is known by question.
    """
    found = [
        _figure(run, "adherence", "task", TASK_SCORES),
        _figure(run, "spillover", "unrelated", SPILLOVER_SCORES),
    ]
    return [*(each for each in found if each is not None), *_others(run)]


def _figure(run: Run, name: str, suite: str, names: tuple[str, ...]) -> Figure | None:
    scores = run.evaluation.get("suites", {}).get(suite, {})
    score = next((each for each in names if each in scores), None)
    if score is None:
        return None
    of_items, share = BY_ITEM.get(score, (score, None))
    interval = None
    if share is not None and of_items in scores:
        interval, score = _interval(run, suite, share), of_items
    # Questions that offer no harmful answer have a value of another kind, and the mean is another one
    if interval is not None and abs(interval.value - scores[score]) > ROUNDING:
        interval = None
    return Figure(name, suite, score, scores[score], first_of(scores, [f"base_{score}"]), interval)


def _interval(run: Run, suite: str, share: Callable[[float], float]) -> Interval | None:
    rows = [row for row in run.items if row["suite"] == suite]
    groups = [str(row["group"] or row["item"]) for row in rows]
    if len(set(groups)) < FEWEST_GROUPS:
        groups = [str(place) for place in range(len(rows))]
    return by_cluster([share(float(row["value"])) for row in rows], groups) if len(rows) > 1 else None


def _others(run: Run) -> Iterator[Figure]:
    scores = run.evaluation.get("suites", {}).get("unrelated", {})
    for name in ("coherence", "kl"):
        if name in scores:
            yield Figure(name, "unrelated", name, scores[name], scores.get(f"base_{name}"), None)
