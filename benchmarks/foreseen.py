"""What null spaces foresaw on toy tasks, and what they then removed: `python benchmarks/foreseen.py STUDY`.

Reads records of fits: `results/toy_ranks` (ranks of a null space, development split, seed 100) and `results/foreseen` (tasks
of a new world, evaluation split, seed 0). Writes results/foreseen.json, a row a fit. Foreseen is, of the text for which it is
highest, A's response before training over all tokens, where answers begin, and that of the first step beside a naive one
(`graspl.starts.response`). What was removed of the naive fit's excess is read at each level of adherence that both reach.

STUDY is the folder of the default's study of the embedded organism with its given text alone, `results/default_text_alone`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tasks import LEVELS, RESULTS, embedded, record, this_machine

from graspl.analysis.fits import at_level, kept_log
from graspl.analysis.tradeoff import base_figures
from graspl.runs import write_json_atomic

FORESEEN = {"response": "typical", "where answers begin": "starts", "first step": "first_step"}


def row(task: Path, record_of_fit: Path) -> dict[str, Any]:
    """Return what a fit foresaw and removed."""
    method, _, seed = record_of_fit.stem.rpartition("_")
    kept = json.loads(record_of_fit.read_text(encoding="utf-8"))["figures"]["null_space"].values()
    logs = {
        "naive": {0: kept_log(task / f"naive_{seed}.json")},
        method: {0: kept_log(record_of_fit)},
    }
    base = base_figures(logs["naive"][0].rows)
    removed = [at_level(logs, "naive", base, float(level))[method]["removed"]["mean"] for level in LEVELS]
    highest = max(each["val/adherence"] for each in logs[method][0].rows if "val/adherence" in each)
    worst = {
        title: round(max(each["before training"][name] for each in kept), 2)
        for title, name in FORESEEN.items()
    }
    return {
        "task": task.name,
        "start": method,
        **worst,
        **{
            f"removed at {level}, %": "-" if each is None else f"{100 * each:.0f}"
            for level, each in zip(LEVELS, removed, strict=True)
        },
        "highest adherence": f"{highest:.2f}",
    }


def rows(folder: Path) -> dict[str, Any]:
    """Return a row a fit with a null space, by task and method."""
    fits = [
        (task, each)
        for task in sorted(folder.iterdir())
        for each in sorted(task.glob("*.json"))
        if not each.name.startswith("naive")
    ]
    found = [row(task, each) for task, each in fits]
    ordered = sorted(found, key=lambda each: (each["task"], each["first step"]))
    return {f"{each['task']} {each['start']}": each for each in ordered}


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path, help="folder of the study of the embedded organism")
    comparison = json.loads((parser.parse_args().study / "comparison.json").read_text(encoding="utf-8"))
    figures = {
        "ranks": rows(RESULTS / "toy_ranks"),
        "new world": rows(RESULTS / "foreseen"),
        "embedded": embedded(comparison),
    }
    command = "python benchmarks/foreseen.py STUDY"
    write_json_atomic(RESULTS / "foreseen.json", record(command, this_machine(), [100, 0], figures, None))


if __name__ == "__main__":
    main()
