"""Evaluated runs side by side, one seed each or several."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graspl.analysis.runs import Rate, Run
from graspl.analysis.scores import LEVELS, RUN_FIGURES
from graspl.analysis.seeds import by_method
from graspl.analysis.tradeoff import base_figures, best_adherence, curve, figures_at, relative_levels
from graspl.errors import GrasplError

# Where runs are compared if the naive fit reaches no level of `LEVELS`: shares of what it gains over the base model.
SHARES = (0.5, 0.9)
RHO = ("rho_mean", "rho_max")


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: list[Run]  # In the order given
    # The figure at equal adherence: `spillover`, or `kl` where no suite off the task has harmful answers.
    figure: str
    # That figure by adherence level and run; None where a run never reached the level.
    matched: dict[str, dict[str, float | None]]
    # The share of the naive fit's gain that each level is; empty where the levels are `LEVELS`.
    shares: dict[str, float]
    # The runs by method and seed; a run that is no seed of a method with several is a method by itself, with the seed "".
    methods: dict[str, dict[str, Run]] = field(default_factory=dict)

    @property
    def baseline(self) -> str | None:
        """The method that the naive fit belongs to."""
        return next((name for name, runs in self.methods.items() if self.naive in runs.values()), None)

    def naive_for(self, run: Run) -> Run | None:
        """Return the naive fit with a run's seed; the first one where there is none."""
        seeds = [seed for runs in self.methods.values() for seed, each in runs.items() if each is run]
        by_seed = self.methods.get(self.baseline or "", {})
        return by_seed.get(seeds[0], self.naive) if seeds else self.naive

    @property
    def naive(self) -> Run | None:
        """The naive fit that the others are compared with; the first if there are several."""
        return next((run for run in self.runs if run.is_naive), None)

    @property
    def others(self) -> list[Run]:
        """The fits that are compared with the naive fit, or with its seeds."""
        seeds = [id(run) for run in self.methods.get(self.baseline or "", {"": self.naive}).values()]
        return [run for run in self.runs if id(run) not in seeds and not run.is_base]

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that can be compared: rho only where all runs were measured along the same directions."""
        return tuple(name for name in RUN_FIGURES if not (name in RHO and self.rho_left_out))

    @property
    def rho_left_out(self) -> str | None:
        """Why rho is left out; None where it can be compared."""
        along = {run.name: run.measured_along for run in self.runs if run.measured_along is not None}
        if len(set(along.values())) < 2:
            return None
        first, *others = along
        other = next(name for name in others if along[name] != along[first])
        fix = "validate all with the same --model.directions"
        return f"rho is left out: {first} and {other} were measured along different directions; {fix}"

    @property
    def ends(self) -> list[Rate]:
        """The harmful share of the choices where the runs ended."""
        return [rate for run in self.runs for rate in run.ends]

    @property
    def judged(self) -> list[Rate]:
        """The judged rates of the runs."""
        return [rate for run in self.runs for rate in run.judged]

    def summary(self) -> dict[str, Any]:
        """Return the figures in `summary.json`."""
        runs = {}
        for run in self.runs:
            named = {name: run.evaluation.get(name) for name in ("adapter", "directions")}
            judged = {rate.suite: {"of": rate.of, **rate.share._asdict()} for rate in run.judged}
            figures = {name: run.metrics[name] if name in self.figures else None for name in RUN_FIGURES}
            runs[run.name] = {**figures, "run": str(run.folder.path), **named}
            runs[run.name] |= {"judged": judged} if judged else {}
            runs[run.name] |= {"commands": run.commands} if run.commands else {}
        matched = {"matched": self.matched, "matched_figure": self.figure, "matched_shares": self.shares}
        return {**runs, **matched}


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs side by side, at matched adherence.

    Raises:
        GrasplError: two runs have the same name.
    """
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise GrasplError(f"names: {name} stands for two runs; give --names, one for each run")
    figure = "kl" if all(run.metrics["spillover"] is None for run in runs) else "spillover"
    shares = _shares(runs)
    levels = {name: float(name) for name in shares} or {f"{level:.2f}": level for level in LEVELS}
    fits = [run for run in runs if curve(run.rows, figure)]
    matched = {}
    for name, level in levels.items():
        matched[name] = {run.name: figures_at(run.rows, level, (figure,))[figure] for run in fits}
    return Comparison(list(runs), figure, matched, shares, by_method(runs))


def _shares(runs: Sequence[Run]) -> dict[str, float]:
    """Return shares of the naive fit's gain by level; empty where it reaches a level of `LEVELS`, or gains nothing."""
    naive = next((run for run in runs if run.is_naive), None)
    start = None if naive is None else base_figures(naive.rows)["adherence"]
    if naive is None or start is None or not start < (best_adherence(naive.rows) or 0.0) < LEVELS[0]:
        return {}
    levels = relative_levels(SHARES, [naive.rows])
    return {f"{level:.4f}": share for level, share in zip(levels, SHARES, strict=True)}
