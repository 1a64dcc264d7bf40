"""`graspl report`: runs side by side."""

import logging
from collections.abc import Sequence
from pathlib import Path

from graspl.analysis import Comparison, Run, StaleResult, compare, read_run, removal_sentence, verdict
from graspl.errors import GrasplError
from graspl.reporting.markdown_report import as_report
from graspl.reporting.page import render_sheet
from graspl.reporting.sheet import sheet_of
from graspl.reporting.tables import Shown, judged_table, runs_table
from graspl.runs import write_json_atomic, write_text_atomic

log = logging.getLogger(__name__)


def report(
    runs: list[Path],
    *,
    out: Path = Path("report"),
    names: Sequence[str] | None = None,
    directions: Sequence[Path] = (),
) -> Shown:
    """Compare evaluated runs; write `report.html`, `report.md` and `summary.json`.

    Runs whose names differ only in a number at the end, such as `naive/seed_0` and `naive/seed_1`, are shown as one method
    over seeds, if nothing else differs between their configurations.

    Args:
        runs: folders that `graspl validate` wrote an evaluation into.
        out: folder for the three files.
        names: of the runs in tables and files, one for each run; by default the ends of the folders' paths that tell them
            apart.
        directions: files whose assumption reports say whether to trust directions, beside those that the runs used.

    Raises:
        GrasplError: a run was not evaluated, or the number of names differs.
    """
    if names is not None and len(names) != len(runs):
        raise GrasplError(f"names: {len(names)} names for {len(runs)} runs; give one for each")
    comparison = compare(_read(runs, names or _told_apart(runs)))
    sheet, page, found = sheet_of(comparison, directions), out / "report.html", verdict(comparison)
    write_text_atomic(page, render_sheet(sheet))
    write_text_atomic(out / "report.md", as_report(sheet))
    told = {
        "removal": sheet.removal._asdict(),
        "verdict": found,
        "headline": sheet.points,
        "report": str(page),
    }
    write_json_atomic(out / "summary.json", {**comparison.summary(), **told})
    tables = [runs_table(comparison), *([judged_table(comparison)] if comparison.judged else [])]
    lines = [
        *sheet.notes,
        *_unfinished(comparison),
        *found,
        *sheet.points[1:],
        removal_sentence(sheet.removal),
    ]
    return Shown(comparison, [*tables, *lines, f"report: {page}"])


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: its own, with those above it where two have the same, e.g. `naive/seed_0`."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [folder.name for folder in folders]


def _unfinished(comparison: Comparison) -> list[str]:
    """Return one line for each command that ran in a run's folder and did not end well."""
    return [
        f"{run.name}: {each['command']} {each['ended']}"
        for run in comparison.runs
        for each in run.commands
        if each["status"] != "complete"
    ]


def _read(folders: Sequence[Path], names: Sequence[str]) -> list[Run]:
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
