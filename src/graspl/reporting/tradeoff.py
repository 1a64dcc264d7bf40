"""Trade-off curves of adherence against spill-over, and comparison at matched adherence."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from graspl.errors import GrasplError

Rows = Sequence[dict[str, float]]
"""A fit's log: of `RunFolder.read_metrics`. Lightning counts a row's `step` from 0."""
TASK_SCORES = ("harmful", "harmful_preferred", "good", "token_accuracy")
"""What adherence is, the first that the task's suite measures (`graspl.evaluation.suites.headline`)."""


class Point(NamedTuple):
    """One validation inside a fit."""

    step: float
    """Optimizer steps."""
    adherence: float
    """In 0..1."""
    spillover: float
    """In 0..1; in nats a token where a curve of the divergence is asked for."""


def curve(rows: Rows, figure: str = "spillover") -> list[Point]:
    """Return the points of a fit's log, by step.

    Args:
        rows: a fit's log.
        figure: set against adherence; `kl` where no suite has harmful answers.
    """
    fields = ("step", "val/adherence", f"val/{figure}")
    points = [Point(*(row[name] for name in fields)) for row in rows if all(name in row for name in fields)]
    return sorted(points)


def figures_at(
    rows: Rows, level: float, figures: Sequence[str], *, by: str = "adherence"
) -> dict[str, float | None]:
    """Return a fit's figures where it first reached a level, of adherence or of another figure.

    The two validations before and after are joined by a straight line. Trained long enough everything converges to
    the spill-over, so methods are compared here and never at a fixed step.

    Args:
        rows: a fit's log.
        level: of the figure `by`.
        figures: names as in the log, without `val/`; `step` too.
        by: the figure that is matched.

    Returns:
        By name; None where the level was never reached or the log has no such figure.
    """
    points = sorted((row for row in rows if f"val/{by}" in row), key=lambda row: row.get("step", 0.0))
    for before, after in zip([None, *points], points, strict=False):
        if after[f"val/{by}"] >= level:
            return {name: _between(before, after, f"val/{by}", _column(name), level) for name in figures}
    return dict.fromkeys(figures)


def spillover_at(points: Sequence[Point], adherence: float) -> float | None:
    """Return the spill-over where the fit first reached an adherence; None where it never did."""
    rows = [{"step": step, "val/adherence": x, "val/spillover": y} for step, x, y in points]
    return figures_at(rows, adherence, ("spillover",))["spillover"]


def base_adherence(rows: Rows) -> float | None:
    """Return the base model's adherence, which every validation of a fit has beside the adapter's; None without any."""
    names = [f"val/task/base_{name}" for name in TASK_SCORES]
    return next((row[name] for row in rows for name in names if name in row), None)


def relative_levels(shares: Sequence[float], baseline: Sequence[Rows]) -> list[float]:
    """Return levels of adherence as shares of what the baseline gains over the base model at its best.

    Args:
        shares: 0 is the base model's adherence, 1 the baseline's best, a mean over its fits.
        baseline: logs of its fits.

    Raises:
        GrasplError: there is none, or they gained nothing.
    """
    bests = [
        max((row["val/adherence"] for row in rows if "val/adherence" in row), default=None)
        for rows in baseline
    ]
    starts = [base_adherence(rows) for rows in baseline]
    gained = [
        (start, best)
        for start, best in zip(starts, bests, strict=True)
        if start is not None and best is not None
    ]
    if not gained:
        raise GrasplError(
            "levels_of: no fit of the baseline has validated, so nothing can be taken a share of"
        )
    start, best = (math.fsum(each) / len(gained) for each in zip(*gained, strict=True))
    if best <= start:
        raise GrasplError(
            f"levels_of: the baseline's adherence ({best:.3f}) is no higher than the base model's ({start:.3f}); train it "
            "for longer, or give levels of adherence"
        )
    return [start + share * (best - start) for share in shares]


def _column(name: str) -> str:
    return name if name == "step" else f"val/{name}"


def _between(
    before: dict[str, float] | None, after: dict[str, float], by: str, name: str, level: float
) -> float | None:
    """Return a figure on the line between two validations."""
    if name not in after:
        return None
    if before is None or name not in before or after[by] == before[by]:
        return after[name]
    share = (level - before[by]) / (after[by] - before[by])
    return before[name] + share * (after[name] - before[name])
