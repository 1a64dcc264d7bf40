"""Whether what a study reads of its fits is as it was made."""

from pathlib import Path

from graspl.analysis.fits import StudyFit
from graspl.runs import Digester, Lineage, RunFolder


def files_of(fit: StudyFit) -> list[Path]:
    """Return the files that a study's figures of a fit are read from: its record where it has one."""
    if fit.kept is not None and fit.kept.exists():
        return [fit.kept]
    run, others = RunFolder(fit.folder), [RunFolder(folder) for folder in fit.made_from.values()]
    named = [run.directions, run.cost, run.judgements, run.judged, *(each.cost for each in others)]
    logged = [file for each in (run, *others) for file in each.metrics_files()]
    return [*logged, *(each for each in named if each.exists())]


def complaint_about(fit: StudyFit, hashing: Digester) -> str | None:
    """Return why a fit's figures cannot be trusted, in one line; None where they are as they were made, or in a record."""
    for file in files_of(fit):
        if file == fit.kept:
            continue
        wrong = Lineage(RunFolder(file.parent), hashing).complaint(file)
        if wrong is not None:
            return f"{file}: {wrong}; remove {file.parent} and run the study again"
    return None
