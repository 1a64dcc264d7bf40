"""What lies beside runs and bears on trust: reports of directions, and what null-space starts said of general text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from graspl.analysis.runs import Run, trusted
from graspl.errors import GrasplError
from graspl.runs import DirectionsFiles, RunFolder, read_json
from graspl.runs.forms import EACH, Form, misfit

# Forms of the reports beside directions, see `graspl.runs.forms`
ASSUMPTIONS = {"verdict": str, "reason": str, "layers": {EACH: {EACH: float | None}}}
BEFORE = {"typical": float | None, "outlook": str | None}
TRIAL = {"kept": {EACH: float}, "reach": float, "outlook": str}
MOVED = [{"deviations": float, "text": str}]
EXPLANATION = {
    "directions": str, "sentence": str, "layer": str, "along": MOVED, "against": MOVED,
    "lens": [{"layer": str, "direction": int, "likelier": [str], "unlikelier": [str]}],
    "steering": [{"prompt": str, "answers": [[str]]}],
}  # fmt: skip
# How a verdict or an outlook is coloured; others have no colour
STATES = {
    "identifiable": "passed", "doubtful": "doubtful", "not": "failed",
    "likely to hold": "passed", "in doubt": "doubtful", "not likely to hold": "failed",
}  # fmt: skip


class Trust(NamedTuple):
    """One reason to trust directions or a null space, or not to."""

    state: str  # A class of the page: passed, doubtful, failed; "" for neither
    verdict: str
    reason: str


class Beside(NamedTuple):
    """All that was found."""

    trust: list[Trust]
    assumptions: list[
        dict[str, Any]
    ]  # Assumption reports, with `directions` and the `fields` of their layers
    null_spaces: list[dict[str, Any]]  # By run and kind of text
    meanings: list[dict[str, Any]]  # Explanations of directions


def beside(runs: Sequence[Run], directions: Sequence[Path] = ()) -> Beside:
    """Return what lies beside runs, and beside directions files named in addition.

    Raises:
        GrasplError: one of the reports is broken.
    """
    files = _directions(runs, directions)
    assumptions, null_spaces = (
        [*_assumptions(files)],
        _null_spaces([run.folder for run in runs], [run.name for run in runs]),
    )
    meanings = [told for each in files if (told := _read(each, each.explanation, EXPLANATION)) is not None]
    return Beside(_trust(assumptions, null_spaces), assumptions, null_spaces, meanings)


def beside_folders(folders: Sequence[Path], names: Sequence[str]) -> Beside:
    """Return what null-space starts said in run folders that were fitted and perhaps not evaluated."""
    null_spaces = _null_spaces([RunFolder(each) for each in folders], names)
    return Beside(_trust([], null_spaces), [], null_spaces, [])


def _trust(assumptions: Sequence[dict[str, Any]], null_spaces: Sequence[dict[str, Any]]) -> list[Trust]:
    """Return one line for each different verdict."""
    lines = []
    for each in assumptions:
        verdict = "not identifiable" if each["verdict"] == "not" else each["verdict"]
        lines.append(Trust(STATES.get(each["verdict"], ""), f"Directions: {verdict}", each["reason"]))
    for outlook in dict.fromkeys(each["outlook"] for each in null_spaces if each["outlook"]):
        here = [f"{each['run']} ({each['text']})" for each in null_spaces if each["outlook"] == outlook]
        told = f"foreseen before training, for {', '.join(dict.fromkeys(here))}"
        lines.append(Trust(STATES.get(outlook, ""), f"Null space: {outlook}", told))
    return list(dict.fromkeys(lines))


def _directions(runs: Sequence[Run], more: Sequence[Path]) -> list[DirectionsFiles]:
    """Return what lies beside the directions files with which runs were evaluated, those that fits found, and others."""
    named = [run.evaluation.get("directions") for run in runs]
    used = [Path(name) for name in named if name and Path(name).suffix]
    own = [run.folder.directions for run in runs if run.folder.directions.is_file()]
    by_place = {path.resolve(): path for path in reversed([*more, *used, *own])}
    return [DirectionsFiles(path) for path in reversed(by_place.values())]


def _read(files: DirectionsFiles, place: Path, form: Form) -> dict[str, Any] | None:
    """Return a report beside directions; None where there is none, or none to trust."""
    kept = trusted(RunFolder(files.path.parent), place, fix="identify again")
    return files.read(place, form) if kept else None


def _assumptions(files: Sequence[DirectionsFiles]) -> Iterator[dict[str, Any]]:
    """Yield the assumption reports of directions, with their columns."""
    for each in files:
        report = _read(each, each.assumptions, ASSUMPTIONS)
        if report is not None:
            layers = report["layers"].values()
            fields = [name for name in next(iter(layers), {}) if all(name in layer for layer in layers)]
            yield {**report, "directions": str(each.path), "fields": fields}


def _null_spaces(folders: Sequence[RunFolder], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the runs' null-space starts say of each kind of general text."""
    found = []
    for folder, run in zip(folders, names, strict=True):
        if not folder.null_space.exists() or not trusted(folder, folder.null_space, fix="fit again"):
            continue
        kept = read_json(folder.null_space, "responses", "fit again", {})
        for name in ("text", "own_text"):
            if name in kept:
                before = kept[name].get("before training", {}) if isinstance(kept[name], dict) else {}
                wrong = misfit(kept[name], {"typical": float}) or misfit(before, BEFORE)
                if wrong is not None:
                    raise GrasplError(f"{folder.null_space}: {name}: {wrong}; fit again")
                told = {"run": run, "text": name.replace("_", " "), "after": kept[name]["typical"]}
                found.append(
                    told
                    | {key: before.get(key) for key in ("typical", "outlook")}
                    | _tried(folder, kept, name)
                )
    return found


def _tried(folder: RunFolder, kept: dict[str, Any], text: str) -> dict[str, Any]:
    """Return what a trial showed of a text, whose outlook counts then; nothing of it where none was made."""
    if "trial" not in kept:
        return {"kept": None}
    wrong = misfit(kept["trial"], TRIAL)
    if wrong is not None:
        raise GrasplError(f"{folder.null_space}: trial: {wrong}; fit again")
    return {"kept": kept["trial"]["kept"].get(text), "outlook": kept["trial"]["outlook"]}
