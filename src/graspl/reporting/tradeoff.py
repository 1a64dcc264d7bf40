"""Trade-off curves of adherence against spill-over, and comparison at matched adherence."""

from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """One validation inside a fit."""

    step: float
    """Optimizer steps."""
    adherence: float
    """In 0..1."""
    spillover: float
    """In 0..1."""


def curve(rows: Sequence[dict[str, float]]) -> list[Point]:
    """Return the points of a fit's log, by step.

    Args:
        rows: of `RunFolder.read_metrics`.
    """
    fields = ("step", "val/adherence", "val/spillover")
    points = [Point(*(row[name] for name in fields)) for row in rows if all(name in row for name in fields)]
    return sorted(points)


def spillover_at(points: Sequence[Point], adherence: float) -> float | None:
    """Return the spill-over where the fit first reached an adherence.

    The two validations before and after are joined by a straight line. Trained long enough everything converges to
    the spill-over, so methods are compared here and never at a fixed step.

    Args:
        points: by step.
        adherence: the level.

    Returns:
        None where the level was never reached.
    """
    for before, after in zip([None, *points], points, strict=False):
        if after.adherence >= adherence:
            if before is None or after.adherence == before.adherence:
                return after.spillover
            share = (adherence - before.adherence) / (after.adherence - before.adherence)
            return before.spillover + share * (after.spillover - before.spillover)
    return None
