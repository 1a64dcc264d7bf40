"""Tables for the terminal."""

from rich.table import Table

from graspl.reporting.comparison import METRICS, Comparison


def figure(value: float | None) -> str:
    """Return a figure as text, a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def runs_table(comparison: Comparison) -> Table:
    """Return one row a run: its figures, and its spill-over at each level of adherence."""
    table = Table("run", *METRICS, *(f"spill-over at {level}" for level in comparison.matched))
    for run in comparison.runs:
        matched = [figure(by_run.get(run.name)) for by_run in comparison.matched.values()]
        table.add_row(run.name, *(figure(value) for value in run.metrics.values()), *matched)
    return table
