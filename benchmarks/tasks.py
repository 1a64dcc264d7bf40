"""The default on tasks that nothing was chosen on, for the pages: `python benchmarks/tasks.py STUDY --embedded EMBEDDED`.

STUDY is the folder of `graspl compare --config configs/organism/compare.yaml --config configs/organism/compare_tasks.yaml`;
records of its fits are in results/sealed. EMBEDDED is that of the same with --tasks '{embedded: {}}' --base_model organism
and --fast_seeds 0 1 2 3 4; its records are in results/default. Writes results/sealed.json, or --out: figures by and over
tasks. Also writes results/predictions.json from the records in results/predictions: whether what a null space foresaw was
right.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from graspl.analysis.fits import at_level, kept_log
from graspl.analysis.tradeoff import base_figures
from graspl.runs import write_json_atomic
from graspl.starts.response import FAILS, HOLDS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
sys.path.append(str(Path(__file__).parent / "real"))

from record import record, this_machine  # noqa: E402 - beside the other studies' scripts

LEVELS = ("0.50", "0.80", "0.90")
NAMES = {
    "default": "**GRASP**",
    "good_mixed": "labelled good answers mixed in",
    "true_held": "true directions held",
}
FEWEST = 3  # Tasks for an interval over them
HALF = 0.5  # A null space holds where it removes at least half of the naive fit's excess at the highest level that both reach
STARTS = "graspl compare of naive and null_space (configs/organism/candidates.yaml), evaluation split"
COMMAND = "graspl compare --config configs/organism/compare.yaml --config configs/organism/compare_tasks.yaml"


def by_task(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return a row a task: what each method removes at each level, and its highest adherence."""
    rows: dict[str, Any] = {}
    for task, found in comparison["tasks"].items():
        topic, _, world = task.rpartition("_")
        naive = found["levels"]["0.50"]["naive"]["excess"]["mean"]
        row = {"world, topic": f"{world}, {topic}", "naive excess at 0.50": _rounded(naive)}
        row["naive's highest"] = _highest(found, "naive")
        for method, name in _named(found["levels"]["0.50"]).items():
            removed = [_percent(found["levels"][level][method]["removed"]["mean"]) for level in LEVELS]
            row[name] = f"{' / '.join(removed)}, {_highest(found, method)}"
        rows[task] = row
    return rows


def over_tasks(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return, at each level, on how many tasks a method reaches it, and what it removes there in the mean over tasks."""
    rows: dict[str, Any] = {}
    for level in (*LEVELS, "0.95"):
        for method in ("naive", *_named(comparison["levels"][level])):
            found = comparison["levels"][level][method]
            removed = found["removed"]
            few = removed["n"] < FEWEST or removed["low"] is None
            row = {"method": NAMES.get(method, method), "reached": f"{found['reached']} of {found['fits']}"}
            row["removed, %"] = "-" if not removed["n"] else _percent(removed["mean"])
            row["95 % interval"] = (
                "-" if few else f"{_percent(removed['low'])} to {_percent(removed['high'])}"
            )
            rows.setdefault(level, {})[method] = row
    return rows


def embedded(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return what the default removes on the embedded organism at each level, with the interval over seeds."""
    rows = {}
    for level, methods in comparison["tasks"]["embedded"]["levels"].items():
        found = methods["default"]
        removed, change, steps = (
            found["removed"],
            found["coherence_change"]["mean"],
            found["step_ratio"]["mean"],
        )
        few = removed["n"] < FEWEST
        rows[level] = {
            "adherence": level,
            "reached": f"{found['step']['n']} of {found['fits']}",
            "removed, %": _percent(removed["mean"]),
            "95 % interval": "-" if few else f"{_percent(removed['low'])} to {_percent(removed['high'])}",
            "coherence": _rounded(change),
            "steps over naive's": "-" if steps is None else f"{steps:.2f}",
        }
    return rows


def predictions() -> dict[str, Any]:
    """Return for each task what a null space's start foresaw, and what a fit with it alone removed.

    The response is the highest that A has before training to any text (`results/candidates.json`). What was removed is read
    at the highest level that both fits reach. The fits of 29 November had A trained; those of results/predictions_frozen had
    not.
    """
    read = json.loads((RESULTS / "candidates.json").read_text(encoding="utf-8"))["figures"]
    rows = {}
    for folder in sorted((RESULTS / "predictions").iterdir()):
        level, removed = held(folder, "null_space")
        frozen = RESULTS / "predictions_frozen" / folder.name
        again = held(frozen, "null_space_frozen") if frozen.is_dir() else None
        before = read["response before training"][folder.name]
        response = max(before["text"], before["own text"])
        foreseen = "holds" if response < HOLDS else "does not hold" if response >= FAILS else "in doubt"
        happened = "holds" if removed >= HALF else "does not hold"
        rows[folder.name] = {
            "task": folder.name,
            "response": response,
            "foreseen": foreseen,
            "removed, %": _percent(removed),
            "at adherence": level,
            "right": "yes" if foreseen == happened else "no",
            "removed with A frozen, %": "-" if again is None else _percent(again[1]),
            "at": "-" if again is None else again[0],
        }
    return rows


def held(folder: Path, method: str) -> tuple[str, float]:
    """Return the highest level that a method's fit and the naive one reach, and the share of the excess removed there."""
    logs = {name: {0: kept_log(folder / f"{name}_0.json")} for name in ("naive", method)}
    base = base_figures(logs["naive"][0].rows)
    at = [at_level(logs, "naive", base, float(level))[method]["removed"]["mean"] for level in LEVELS]
    return [(level, each) for level, each in zip(LEVELS, at, strict=True) if each is not None][-1]


def _named(found: Any) -> dict[str, str]:
    return {method: name for method, name in NAMES.items() if method in found}


def _highest(found: dict[str, Any], method: str) -> str:
    (curve,) = found["curves"][method].values()
    return f"{max(point[0] for point in curve):.2f}"


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path, help="folder of the study")
    parser.add_argument(
        "--embedded", type=Path, help="folder of the study of the embedded organism, results/default"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "sealed.json")
    options = parser.parse_args()
    study = options.study
    comparison = json.loads((study / "comparison.json").read_text(encoding="utf-8"))
    figures = {"tasks": by_task(comparison), "over tasks": over_tasks(comparison)}
    if options.embedded is not None:
        read = (options.embedded / "comparison.json").read_text(encoding="utf-8")
        figures["embedded"] = embedded(json.loads(read))
    again = f" --kept results/{options.out.stem} --fast_methods naive default"
    command = COMMAND if options.embedded is not None else COMMAND + again
    write_json_atomic(options.out, record(command, this_machine(), [0], figures, None))
    found = predictions()
    right = sum(each["right"] == "yes" for each in found.values())
    figures = {"tasks": found, "right": f"{right} of {len(found)}"}
    write_json_atomic(RESULTS / "predictions.json", record(STARTS, this_machine(), [0], figures, None))


if __name__ == "__main__":
    main()
