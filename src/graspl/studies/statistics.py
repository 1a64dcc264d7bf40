"""What fits say together: figures at matched adherence, over seeds, with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy.stats import t as students_t

from graspl.reporting.tradeoff import Rows, figures_at

FIGURES = (
    "spillover",
    "coherence",
    "kl",
    "unrelated/good",
    "unrelated/harmful_greedy",
    "update_norm",
    "step",
)
"""What is read off a fit at a level of adherence; names as in its log, without `val/`."""
LEVEL = 0.95
"""Of the intervals."""


class Summary(NamedTuple):
    """A figure over seeds."""

    n: int
    """Fits that have it."""
    mean: float | None
    """None without any."""
    sd: float | None
    """Standard deviation of a fit (n - 1); None with fewer than two."""
    low: float | None
    """Lower end of the 95 % interval of the mean."""
    high: float | None
    """Upper end."""


def summarise(values: Sequence[float | None]) -> Summary:
    """Return mean, standard deviation and Student's 95 % interval of the mean.

    Args:
        values: one a seed; None (level not reached) is left out.
    """
    known = [value for value in values if value is not None]
    n = len(known)
    if n == 0:
        return Summary(0, None, None, None, None)
    mean = math.fsum(known) / n
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    half = float(students_t.ppf(0.5 + LEVEL / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def at_level(
    rows: Mapping[str, Mapping[int, Rows]],
    baseline: str,
    base: Mapping[str, float | None],
    level: float,
    naive_steps: Mapping[str, Mapping[int, int]] | None = None,
    norm_baseline: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return every method's figures at one level of adherence.

    Args:
        rows: log of each fit, by method and seed.
        baseline: name of the naive method; stopped at the level it is the early-stopped control.
        base: the base model's figures.
        level: adherence.
        naive_steps: that a fit took before the logged ones to find its directions.
        norm_baseline: a naive method that trains on for long, to be read off at equal norm; `baseline` where None.

    Returns:
        By method: `seeds` (figures by seed), a `Summary` as a dict for each of `FIGURES`; `removed`, the share of the
        baseline's excess spill-over (above the base model's) that the method removes, paired by seed; `steps`, all optimizer
        steps with those in `naive_steps`; `step_ratio`, these over the baseline's; and `norm_matched`, the norm baseline at
        the step where its update is as large.
    """
    by_norm = rows.get(norm_baseline or baseline, {})
    found: dict[str, dict[str, Any]] = {}
    naive = {seed: _read(each, level) for seed, each in rows.get(baseline, {}).items()}
    for method, by_seed in rows.items():
        seeds: dict[int, dict[str, float | None]] = {}
        for seed, each in by_seed.items():
            seeds[seed] = _read(each, level)
            reference = naive.get(seed, {})
            seeds[seed]["removed"] = _removed(seeds[seed].get("spillover"), reference.get("spillover"), base)
            step, more = seeds[seed]["step"], (naive_steps or {}).get(method, {}).get(seed, 0)
            seeds[seed]["steps"] = None if step is None else step + more
            seeds[seed]["step_ratio"] = _ratio(seeds[seed]["steps"], reference.get("step"))
            norm = seeds[seed].get("update_norm")
            matched = (
                figures_at(by_norm[seed], norm, ("adherence", "spillover"), by="update_norm")
                if norm is not None and seed in by_norm
                else {}
            )
            seeds[seed]["norm_matched/adherence"] = matched.get("adherence")
            seeds[seed]["norm_matched/spillover"] = matched.get("spillover")
        names = list(next(iter(seeds.values()))) if seeds else []
        summaries = {name: summarise([each[name] for each in seeds.values()])._asdict() for name in names}
        found[method] = {"seeds": seeds, **summaries}
    return found


def _read(rows: Rows, level: float) -> dict[str, float | None]:
    found = figures_at(rows, level, FIGURES)
    step = found["step"]
    return found | {
        "step": None if step is None else step + 1
    }  # optimizer steps taken; the log counts from 0


def _removed(ours: float | None, naive: float | None, base: Mapping[str, float | None]) -> float | None:
    start = base.get("spillover")
    if ours is None or naive is None or start is None or naive <= start:
        return None
    return 1 - (ours - start) / (naive - start)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def area_under(rows: Rows, low: float, high: float, points: int = 41) -> float | None:
    """Return the mean spill-over over a range of adherence: the area under the trade-off curve over its width.

    Args:
        rows: a fit's log.
        low: adherence from which, at least the base model's.
        high: adherence to which; None is returned for a fit that never reached it.
        points: at which the curve is read off.
    """
    levels = [low + (high - low) * index / (points - 1) for index in range(points)]
    read = [figures_at(rows, level, ("spillover",))["spillover"] for level in levels]
    known = [value for value in read if value is not None]
    return math.fsum(known) / len(known) if len(known) == points else None
