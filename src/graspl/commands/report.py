"""`graspl report`: runs side by side."""

from pathlib import Path

from jsonargparse import ArgumentParser

from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.reporting import Comparison, compare, headline, read_run, render_page, runs_table, verdict
from graspl.runs import write_json_atomic, write_text_atomic


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl report`."""
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folders that graspl validate wrote an evaluation into"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for report.html and summary.json"
    )
    parser.add_argument(
        "--names", type=str, nargs="+", help="of the runs, one for each; else the folders' names"
    )


def report(runs: list[Path], out: Path = Path("report"), names: list[str] | None = None) -> Comparison:
    """Compare evaluated runs: prints a table, writes `report.html` and `summary.json`.

    Args:
        runs: folders that `graspl validate` wrote an evaluation into.
        out: folder for the two files.
        names: of the runs in table and files, one for each; the folders' names where none are given.

    Raises:
        GrasplError: a run was not evaluated, or names do not fit.
    """
    if names is not None and len(names) != len(runs):
        raise GrasplError(f"names: {len(names)} names for {len(runs)} runs; give one for each")
    comparison = compare(
        [read_run(run, name) for run, name in zip(runs, names or [None] * len(runs), strict=True)]
    )
    page = out / "report.html"
    write_text_atomic(page, render_page(comparison))
    said = {"verdict": verdict(comparison), "headline": headline(comparison)}
    write_json_atomic(out / "summary.json", {**comparison.summary(), **said, "report": str(page)})
    terminal = console()
    terminal.print(runs_table(comparison))
    for line in (*said["verdict"], *said["headline"][1:], f"report: {page}"):
        terminal.print(line, soft_wrap=True, highlight=False, markup=False)
    return comparison
