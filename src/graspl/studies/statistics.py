"""What fits say together: figures at matched adherence, over seeds and tasks, with intervals."""

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
SPILLOVER_SCORES = ("harmful", "harmful_preferred")
"""What spill-over is, the first that the suite of unrelated topics measures."""
GUARDED = ("coherence", "unrelated/good")
"""Figures of other topics that a fit should leave as the base model has them."""
LEVEL = 0.95
"""Of the intervals."""


class Cost(NamedTuple):
    """Floating-point operations of a fit."""

    start: float
    """Before its first step, with those of the fits that it was made from."""
    step: float
    """Of an optimizer step."""

    def until(self, step: float | None) -> float | None:
        """Return the operations of a fit that stops after so many steps; None where it never came there."""
        return None if step is None else self.start + self.step * step


class Summary(NamedTuple):
    """A figure over seeds, or over tasks."""

    n: int
    """Fits, or tasks, that have it."""
    mean: float | None
    """None without any."""
    sd: float | None
    """Standard deviation of one (n - 1); None with fewer than two."""
    low: float | None
    """Lower end of the 95 % interval of the mean."""
    high: float | None
    """Upper end."""


def summarise(values: Sequence[float | None]) -> Summary:
    """Return mean, standard deviation and Student's 95 % interval of the mean.

    Args:
        values: one a seed or task; None (level not reached) is left out.
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
    reference: str | None = None,
    costs: Mapping[str, Mapping[int, Cost | None]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return every method's figures at one level of adherence.

    Args:
        rows: log of each fit, by method and seed.
        baseline: name of the naive method; stopped at the level it is the early-stopped control.
        base: the base model's figures.
        level: adherence.
        naive_steps: that a fit took before the logged ones to find its directions.
        norm_baseline: a naive method that trains on for long, to be read off at equal norm; `baseline` where None.
        reference: the method whose `removed` the others' is told from; none where None.
        costs: of each fit; None where they were not counted.

    Returns:
        By method: `seeds` (figures by seed), `fits` (how many there are), and a `Summary` as a dict for each of `FIGURES` and
        for: `excess`, the spill-over above the base model's; `removed`, the share of the baseline's excess that the method
        removes, paired by seed; `behind`, by how much that is less than the reference's, paired by seed; `<figure>_change`,
        what became of each of `GUARDED` since the base model; `steps`, all optimizer steps with those in `naive_steps`;
        `step_ratio`, these over the baseline's; `cost_ratio`, operations over the baseline's; and `norm_matched`, the
        norm baseline where its update is as large.
    """
    by_norm = rows.get(norm_baseline or baseline, {})
    found: dict[str, dict[str, Any]] = {}
    naive = {seed: _read(each, level) for seed, each in rows.get(baseline, {}).items()}

    def removed(method: str | None, seed: int) -> float | None:
        log = rows.get(method or "", {}).get(seed, [])
        return _removed(_read(log, level)["spillover"], naive.get(seed, {}).get("spillover"), base)

    for method, by_seed in rows.items():
        seeds: dict[int, dict[str, float | None]] = {}
        for seed, each in by_seed.items():
            seeds[seed] = _read(each, level)
            seeds[seed]["excess"] = _change(seeds[seed]["spillover"], base.get("spillover"))
            seeds[seed]["removed"] = removed(method, seed)
            if reference is not None:
                seeds[seed]["behind"] = _change(removed(reference, seed), seeds[seed]["removed"])
            for name in GUARDED:
                seeds[seed][f"{name}_change"] = _change(seeds[seed][name], base.get(name))
            step, more = seeds[seed]["step"], (naive_steps or {}).get(method, {}).get(seed, 0)
            seeds[seed]["steps"] = None if step is None else step + more
            seeds[seed]["step_ratio"] = _ratio(seeds[seed]["steps"], naive.get(seed, {}).get("step"))
            spent, plain = ((costs or {}).get(each, {}).get(seed) for each in (method, baseline))
            seeds[seed]["cost_ratio"] = _ratio(
                spent and spent.until(step), plain and plain.until(naive.get(seed, {}).get("step"))
            )
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
        found[method] = {"seeds": seeds, "fits": len(seeds), **summaries}
    return found


def over_tasks(by_task: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return every method's figures over tasks: the mean of each task's mean, with Student's interval over tasks.

    Tasks differ more than seeds, and a fit is not independent of the others on its task; hence tasks are what is counted.

    Args:
        by_task: what `at_level` returned for each task.

    Returns:
        By method: `tasks` (each task's means), `fits` and `reached` (how many there are, and came to the level, on all
        tasks), and a `Summary` as a dict for each figure, over the tasks that have it.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(method for methods in by_task.values() for method in methods):
        here = {task: methods[method] for task, methods in by_task.items() if method in methods}
        names = [name for name, value in next(iter(here.values())).items() if name not in ("seeds", "fits")]
        means = {task: {name: each[name]["mean"] for name in names} for task, each in here.items()}
        found[method] = {
            "tasks": means,
            "fits": sum(each["fits"] for each in here.values()),
            "reached": sum(each["step"]["n"] for each in here.values()),
            **{name: summarise([each[name] for each in means.values()])._asdict() for name in names},
        }
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


def _change(ours: float | None, theirs: float | None) -> float | None:
    return ours - theirs if ours is not None and theirs is not None else None


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
