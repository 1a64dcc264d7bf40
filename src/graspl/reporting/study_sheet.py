"""What a study's page says: the form of `sheet.py`, filled from its fits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graspl.analysis.fits import Measured, StudyFit, read_log
from graspl.analysis.removal import study_removal
from graspl.analysis.runs import read_commands
from graspl.analysis.tradeoff import curve
from graspl.reporting.beside import beside_folders
from graspl.reporting.grids import study_grids
from graspl.reporting.markdown import judged_lines
from graspl.reporting.plots import step_plots, tradeoff_plot
from graspl.reporting.run_facts import commands_grid, folder_facts_grid, options_grid
from graspl.reporting.series import NAIVE, OTHERS, Series
from graspl.reporting.sheet import Sheet
from graspl.runs import RunFolder


def study_sheet(found: Mapping[str, Any], fits: Sequence[StudyFit], measured: Measured, out: Path) -> Sheet:
    """Return what there is to say about a study.

    Args:
        found: of `graspl.analysis.study.comparison_of`, with the verdict.
        fits: those that it was made from.
        measured: which scores stand for adherence and spill-over.
        out: the study's folder.
    """
    series = _series(fits, found["baseline"], measured)
    folders: dict[str, list[Path]] = {}
    for each in fits:
        folders.setdefault(each.method, []).append(each.folder)
    names = [f"{each.method}, {f'{each.task}, ' if each.task else ''}seed {each.seed}" for each in fits]
    facts = [
        folder_facts_grid(folders),
        options_grid({name: RunFolder(each[0]) for name, each in folders.items()}),
        commands_grid({out.name: read_commands(RunFolder(out))}),
    ]
    spilt = [curve(rows) for each in series for rows in each.logs.values()]
    failed = [f"failed: {name}: {why}" for name, why in found.get("failed", {}).items()]
    return Sheet(
        title="graspl compare",
        removal=study_removal(found),
        beside=beside_folders([each.folder for each in fits], names),
        tradeoff=tradeoff_plot(series, "spillover" if any(spilt) else "kl"),
        points=[line.strip() for line in found.get("verdict", [])],
        figures=study_grids(found),
        steps=step_plots(series),
        judged_lines=judged_lines(found),
        facts=[grid for grid in facts if grid.rows],
        notes=failed,
        files={"study": str(out)},
    )


def _series(fits: Sequence[StudyFit], baseline: str, measured: Measured) -> list[Series]:
    """Return a study's series: one for each method, the baseline first."""
    methods = dict.fromkeys([baseline, *(each.method for each in fits)])
    free, found = iter(OTHERS * len(methods)), []
    for method in methods:
        here = [each for each in fits if each.method == method]
        logs = {f"{each.task or ''} {each.seed}".strip(): read_log(each, measured).rows for each in here}
        color = NAIVE if method == baseline else next(free)
        if logs:
            found.append(Series(method, color, logs, tasks=len({each.task for each in here}) > 1))
    return found
