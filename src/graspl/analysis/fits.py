"""A study's fits at one level of adherence: each method's figures over seeds, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from graspl.analysis.intervals import summarise
from graspl.analysis.runs import is_judged, read_judged
from graspl.analysis.scores import GUARDED, MATCHED_FIGURES
from graspl.analysis.tradeoff import Rows, figures_at, share_removed, standing_for
from graspl.directions.file import read_metadata
from graspl.errors import GrasplError
from graspl.runs import RunFolder, read_json
from graspl.runs.forms import EACH


@dataclass(frozen=True)
class Measured:
    """Which scores of suites a study compares, named as in the log without `val/`, e.g. `task/margin`."""

    adherence: str | None = None
    """Stands for adherence; the usual one where None."""
    spillover: str | None = None
    """Stands for spill-over; the usual one where None."""
    others: list[str] = field(default_factory=list)
    """Compared at the same levels, beside the spill-over."""


@dataclass(frozen=True)
class StudyFit:
    """One fit of a study: who it is and where its files are."""

    method: str  # Name of the method
    seed: int  # Of the adapter's start, and wherever the configuration says `{seed}`
    folder: Path  # Its run folder
    task: str | None = field(default=None, kw_only=True)  # Name of the task; None in a study of one task
    # Folders of the fits that this one takes something from, by method.
    made_from: Mapping[str, Path] = field(default_factory=dict, kw_only=True)
    # Where its record is kept, to be read where the folder is not; None keeps none.
    kept: Path | None = field(default=None, kw_only=True)


class Cost(NamedTuple):
    """Floating-point operations of a fit."""

    start: float  # Before its first step, with those of the fits that it was made from
    step: float  # Of an optimizer step

    def until(self, step: float | None) -> float | None:
        """Return the operations of a fit that stops after so many steps; None where it never got there."""
        return None if step is None else self.start + self.step * step


# The form of the figures in a record of a fit
KEPT = {"rows": [{EACH: float}], "naive_steps": int, "cost": dict | None, "judged": dict}


class FitLog(NamedTuple):
    """What a finished fit logged and cost."""

    rows: Rows  # Its log
    naive_steps: int = 0  # Optimizer steps of throw-away fits before it
    cost: Cost | None = None  # None where the operations were not counted
    # Rates of judged answers by suite, as in `judged.json`; empty where nothing was judged.
    judged: Mapping[str, Mapping[str, Any]] = {}


Logs = Mapping[str, Mapping[int, FitLog]]  # By method and seed
Figures = dict[str, float | None]  # Of one fit, by name


def read_log(fit: StudyFit, measured: Measured = Measured()) -> FitLog:
    """Read what a finished fit logged and cost, from its folder or its record."""
    found = kept_log(fit.kept) if fit.kept is not None and fit.kept.exists() else log_of(fit)
    return found._replace(rows=standing_for(found.rows, measured.adherence, measured.spillover))


def log_of(fit: StudyFit) -> FitLog:
    """Read what a finished fit logged and cost, from its folder."""
    run = RunFolder(fit.folder)
    told = read_metadata(run.directions).get("naive_steps", "0") if run.directions.is_file() else "0"
    if not told.isdecimal():
        raise GrasplError(f"{run.directions}: naive_steps is {told!r} and must be a number; fit again")
    return FitLog(run.read_metrics(), int(told), _cost(fit), read_judged(run))


def kept_log(path: Path) -> FitLog:
    """Read what a finished fit logged and cost, from its record (`graspl.studies.kept`)."""
    again = "remove it, and run the study again"
    found = read_json(path, "figures", again, {"figures": KEPT})["figures"]
    cost, judged = found["cost"], found["judged"]
    if (cost is not None and set(cost) != set(Cost._fields)) or not all(map(is_judged, judged.values())):
        raise GrasplError(f"{path}: holds no figures of a fit; {again}")
    return FitLog(found["rows"], found["naive_steps"], None if cost is None else Cost(**cost), judged)


def at_level(
    logs: Logs,
    baseline: str,
    base: Mapping[str, float | None],
    level: float,
    norm_baseline: str | None = None,
    reference: str | None = None,
    others: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Return every method's figures at one level of adherence.

    The baseline stopped at the level is the early-stopped control. `norm_baseline` (the baseline where None) is read at equal
    norm of the update.

    Returns:
        By method: `seeds` (figures by seed), `fits` (their number), and a `Summary` as a dict for each of `MATCHED_FIGURES`
        and of these:
        `excess`: spill-over above the base model's.
        `removed`: share of the baseline's excess that the method removes, paired by seed.
        `behind`: how much less than the reference it removes, paired by seed.
        `<figure>_change`: change since the base model, for each of `GUARDED` and of `others`.
        `<figure>_removed`: as `removed`, for each of `others`.
        `steps`: optimizer steps, with those of throw-away fits; `step_ratio`: `steps` over the baseline's.
        `cost_ratio`: operations over the baseline's.
        `norm_matched/<figure>`: the norm baseline's figure where its update is as large.
    """
    found = {
        method: {seed: _read(log, level, others) for seed, log in seeds.items()}
        for method, seeds in logs.items()
    }
    naive = found.get(baseline, {})
    for seeds in found.values():
        for seed, each in seeds.items():
            each["excess"] = _minus(each["spillover"], base.get("spillover"))
            for name in ("spillover", *others):
                key = "removed" if name == "spillover" else f"{name}_removed"
                each[key] = share_removed(each[name], naive.get(seed, {}).get(name), base.get(name))
    plain, by_norm = logs.get(baseline, {}), logs.get(norm_baseline or baseline, {})
    for method, seeds in found.items():
        for seed, each in seeds.items():
            if reference is not None:
                ours = found.get(reference, {}).get(seed, {}).get("removed")
                each["behind"] = _minus(ours, each["removed"])
            each |= {f"{name}_change": _minus(each[name], base.get(name)) for name in (*GUARDED, *others)}
            each |= _effort(each, logs[method][seed], naive.get(seed, {}).get("step"), plain.get(seed))
            each |= _at_norm(each["update_norm"], by_norm.get(seed))
    return {method: {"seeds": seeds, "fits": len(seeds), **_over(seeds)} for method, seeds in found.items()}


def over_tasks(by_task: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return every method's figures over tasks: the mean of the tasks' means, with Student's interval over tasks.

    Tasks differ more than seeds, and the fits of one task are not independent; so tasks are counted, not fits. `tasks` has
    each task's means, `fits` and `reached` the numbers of fits and of those that reached the level.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(method for methods in by_task.values() for method in methods):
        here = {task: methods[method] for task, methods in by_task.items() if method in methods}
        names = [name for name in next(iter(here.values())) if name not in ("seeds", "fits")]
        means = {task: {name: each[name]["mean"] for name in names} for task, each in here.items()}
        found[method] = {
            "tasks": means,
            "fits": sum(each["fits"] for each in here.values()),
            "reached": sum(each["step"]["n"] for each in here.values()),
            **_over(means),
        }
    return found


def _over(each: Mapping[Any, Figures]) -> dict[str, Any]:
    """Summarise figures over seeds, or over tasks."""
    names = next(iter(each.values()), {})
    return {name: summarise([figures[name] for figures in each.values()])._asdict() for name in names}


def _cost(fit: StudyFit) -> Cost | None:
    """Return a fit's cost with that of the fits it was made from; None where one was not counted."""
    start = 0.0
    for folder in fit.made_from.values():
        run = RunFolder(folder)
        spent, steps = run.read_cost(), max((row.get("step", 0) for row in run.read_metrics()), default=0)
        if spent is None:
            return None
        start += spent["start_flops"] + spent["step_flops"] * (steps + 1)
    own = RunFolder(fit.folder).read_cost()
    return None if own is None else Cost(start + own["start_flops"], own["step_flops"])


def _read(log: FitLog, level: float, others: Sequence[str]) -> Figures:
    found = figures_at(log.rows, level, (*MATCHED_FIGURES, *others))
    step = found["step"]
    return found | {"step": None if step is None else step + 1}  # the log counts steps from 0


def _effort(found: Figures, log: FitLog, naive_step: float | None, naive: FitLog | None) -> Figures:
    step = found["step"]
    steps = None if step is None else step + log.naive_steps
    spent = None if log.cost is None else log.cost.until(step)
    plain = None if naive is None or naive.cost is None else naive.cost.until(naive_step)
    return {
        "steps": steps,
        "step_ratio": _over_naive(steps, naive_step),
        "cost_ratio": _over_naive(spent, plain),
    }


def _at_norm(norm: float | None, log: FitLog | None) -> Figures:
    figures = ("adherence", "spillover")
    known = {} if norm is None or log is None else figures_at(log.rows, norm, figures, by="update_norm")
    return {f"norm_matched/{name}": known.get(name) for name in figures}


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return ours - theirs if ours is not None and theirs is not None else None


def _over_naive(ours: float | None, naive: float | None) -> float | None:
    return ours / naive if ours is not None and naive else None
