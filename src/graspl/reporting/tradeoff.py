"""Trade-off curves of adherence against spill-over, and comparison at matched adherence."""

from collections.abc import Sequence
from typing import NamedTuple

Rows = Sequence[dict[str, float]]
"""A fit's log: of `RunFolder.read_metrics`. Lightning counts a row's `step` from 0."""


class Point(NamedTuple):
    """One validation inside a fit."""

    step: float
    """Optimizer steps."""
    adherence: float
    """In 0..1."""
    spillover: float
    """In 0..1."""


def curve(rows: Rows) -> list[Point]:
    """Return the points of a fit's log, by step."""
    fields = ("step", "val/adherence", "val/spillover")
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
