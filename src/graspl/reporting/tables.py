"""Tables for the terminal."""

from rich.table import Table

from graspl.reporting.comparison import METRICS, Comparison
from graspl.reporting.sentences import at


def figure(value: float | None) -> str:
    """Return a figure as text, a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def matched_columns(comparison: Comparison) -> list[str]:
    """Return the heading of each level of adherence, e.g. `spill-over at 0.90`."""
    name = "kl" if comparison.figure == "kl" else "spill-over"
    return [f"{name} at {at(comparison, level).removeprefix('adherence ')}" for level in comparison.matched]


def runs_table(comparison: Comparison) -> Table:
    """Return one row a run: its figures, and what is compared at each level of adherence."""
    table = Table("run", *METRICS, *matched_columns(comparison))
    for run in comparison.runs:
        matched = [figure(by_run.get(run.name)) for by_run in comparison.matched.values()]
        table.add_row(run.name, *(figure(value) for value in run.metrics.values()), *matched)
    return table
