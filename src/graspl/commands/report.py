"""`graspl report`: runs side by side."""

import logging
from collections.abc import Sequence
from pathlib import Path

from graspl.analysis import Comparison, Run, StaleResult, compare, key_points, read_run, verdict
from graspl.errors import GrasplError
from graspl.reporting.page import render_page
from graspl.reporting.tables import Shown, judged_table, runs_table
from graspl.runs import write_json_atomic, write_text_atomic

log = logging.getLogger(__name__)


def report(runs: list[Path], *, out: Path = Path("report"), names: Sequence[str] | None = None) -> Shown:
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
    comparison = compare(_read(runs, names or [None] * len(runs)))
    page, found, points = out / "report.html", verdict(comparison), key_points(comparison)
    write_text_atomic(page, render_page(comparison))
    told = {"verdict": found, "headline": points, "report": str(page)}
    write_json_atomic(out / "summary.json", {**comparison.summary(), **told})
    tables = [runs_table(comparison), *([judged_table(comparison)] if comparison.judged else [])]
    left_out = [comparison.rho_left_out] if comparison.rho_left_out else []
    return Shown(
        comparison, [*tables, *left_out, *_unfinished(comparison), *found, *points[1:], f"report: {page}"]
    )


def _unfinished(comparison: Comparison) -> list[str]:
    """Return one line for each command that ran in a run's folder and did not end well."""
    return [
        f"{run.name}: {each['command']} {each['ended']}"
        for run in comparison.runs
        for each in run.commands
        if each["status"] != "complete"
    ]


def _read(folders: Sequence[Path], names: Sequence[str | None]) -> list[Run]:
    """Return the runs whose evaluation can be trusted; name the others."""
    read, stale = [], None
    for folder, name in zip(folders, names, strict=True):
        try:
            read.append(read_run(folder, name))
        except StaleResult as error:
            stale = error
            log.warning("%s; the run is left out", error)
    if not read and stale is not None:
        raise stale
    return read
