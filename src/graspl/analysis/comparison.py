"""Evaluated runs side by side, one seed each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graspl.analysis.runs import Rate, Run
from graspl.analysis.scores import LEVELS
from graspl.analysis.tradeoff import base_figures, best_adherence, curve, figures_at, relative_levels
from graspl.errors import GrasplError

# Where runs are compared if the naive fit reaches no level of `LEVELS`: shares of what it gains over the base model.
SHARES = (0.5, 0.9)


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

    @property
    def naive(self) -> Run | None:
        """The naive fit that the others are compared with; the first if there are several."""
        return next((run for run in self.runs if run.is_naive), None)

    @property
    def others(self) -> list[Run]:
        """The fits that are compared with the naive fit."""
        return [run for run in self.runs if run is not self.naive and not run.is_base]

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
            runs[run.name] = {**run.metrics, "run": str(run.folder.path), **named}
            runs[run.name] |= {"judged": judged} if judged else {}
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
    return Comparison(list(runs), figure, matched, shares)


def _shares(runs: Sequence[Run]) -> dict[str, float]:
    """Return shares of the naive fit's gain by level; empty where it reaches a level of `LEVELS`, or gains nothing."""
    naive = next((run for run in runs if run.is_naive), None)
    start = None if naive is None else base_figures(naive.rows)["adherence"]
    if naive is None or start is None or not start < (best_adherence(naive.rows) or 0.0) < LEVELS[0]:
        return {}
    levels = relative_levels(SHARES, [naive.rows])
    return {f"{level:.4f}": share for level, share in zip(levels, SHARES, strict=True)}
