"""What plots show: one series for each method, with all its seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from graspl.analysis.comparison import Comparison
from graspl.analysis.intervals import Interval
from graspl.analysis.runs import Run
from graspl.analysis.tradeoff import Rows

# At least 3:1 against a white and against a near-black page
BASE, NAIVE = "#7a7f87", "#d1495b"
OTHERS = ("#2f7fd6", "#1f9d63", "#9a62d0", "#b8790f", "#3f8f9b", "#c2528b", "#6b7fd7", "#8a6d3b")


class End(NamedTuple):
    """Where a run ended."""

    name: str  # The run's
    adherence: float
    value: float  # Of the figure in question
    # The harmful share of the choices on the task and off it, with their intervals over questions; None without items
    across: Interval | None = None
    up: Interval | None = None


@dataclass(frozen=True)
class Series:
    """One method's fits, or a base model."""

    name: str
    color: str  # As in HTML, `#rrggbb`
    logs: Mapping[str, Rows] = field(default_factory=dict)  # By seed, and task where there are several
    ends: Sequence[End] = ()
    spectra: Sequence[Sequence[float]] = ()  # Singular values of each site of each fit, each over its first
    tasks: bool = False  # Whether the fits are of several tasks, so that a mean over them says little


def series_of(comparison: Comparison) -> list[Series]:
    """Return a comparison's series, in the order of the runs."""
    free, found = iter(OTHERS * len(comparison.runs)), []
    for method, runs in comparison.methods.items():
        first = next(iter(runs.values()))
        color = BASE if first.is_base else NAIVE if method == comparison.baseline else next(free)
        logs = {seed or run.name: run.rows for seed, run in runs.items() if run.rows}
        ends = [end for run in runs.values() if (end := _end(run, comparison.figure)) is not None]
        spectra = [each for run in runs.values() for each in _spectra(run)]
        found.append(Series(method, color, logs, ends, spectra))
    return found


def _end(run: Run, figure: str) -> End | None:
    adherence, value = run.metrics["adherence"], run.metrics[figure]
    if adherence is None or value is None:
        return None
    task, unrelated = run.share("task"), run.share("unrelated")
    if figure != "spillover" or task is None or unrelated is None or min(task.n, unrelated.n) < 2:
        return End(run.name, adherence, value)
    return End(run.name, adherence, value, task, unrelated)


def _spectra(run: Run) -> list[list[float]]:
    every = [site["singular_values"] for site in run.evaluation.get("sites", {}).values()]
    return [[value / values[0] for value in values] for values in every if values and values[0] > 0]
