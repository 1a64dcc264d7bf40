"""`graspl report`: runs side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from graspl.analysis import Comparison, compare, key_points, read_run, verdict
from graspl.errors import GrasplError
from graspl.reporting.page import render_page
from graspl.reporting.tables import judged_table, runs_table
from graspl.runs import write_json_atomic, write_text_atomic


@dataclass(frozen=True)
class Report:
    """Runs side by side, and the page about them."""

    comparison: Comparison
    """The runs' figures."""
    page: Path
    """The HTML page."""

    def render(self) -> Iterator[Table | str]:
        """Yield the tables, the verdict and the page's path."""
        yield runs_table(self.comparison)
        if self.comparison.judged:
            yield judged_table(self.comparison)
        yield from verdict(self.comparison)
        yield from key_points(self.comparison)[1:]
        yield f"report: {self.page}"


def report(runs: list[Path], *, out: Path = Path("report"), names: Sequence[str] | None = None) -> Report:
    """Compare evaluated runs; write `report.html` and `summary.json`.

    Args:
        runs: folders that `graspl validate` wrote an evaluation into.
        out: folder for the two files.
        names: of the runs in tables and files, one for each run; the folders' names by default.

    Raises:
        GrasplError: a run was not evaluated, or the number of names differs.
    """
    if names is not None and len(names) != len(runs):
        raise GrasplError(f"names: {len(names)} names for {len(runs)} runs; give one for each")
    comparison = compare([*map(read_run, runs, names or [None] * len(runs))])
    found = Report(comparison, out / "report.html")
    write_text_atomic(found.page, render_page(comparison))
    told = {"verdict": verdict(comparison), "headline": key_points(comparison), "report": str(found.page)}
    write_json_atomic(out / "summary.json", {**comparison.summary(), **told})
    return found
