"""Was what a null space foresaw on real tasks right? `python benchmarks/real/predicted.py OUT RUN...`.

RUN is the folder of a null-space fit of configs/real, whose `null_space.json` has the responses before training. What it then
removed of the far excess is read from results/real_TASK_by_margin.json, which tables.py wrote, at the highest share of the
naive fit's gain that all fits reach. OUT, one of results/*.json, gets a row a task.

A null space holds where it removes at least half there. The default acts on two cases: it trusts the null space unless that
is *not likely to hold*.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from record import record, this_machine

from graspl.runs import write_json_atomic

RESULTS = Path(__file__).parents[2] / "results"
LEVELS = ("0.90", "0.80", "0.50")
HALF = 50  # Percent


def removed(task: str) -> tuple[str, int]:
    """Return the highest level that all naive and null-space fits of a task reach, and what is removed there, in percent."""
    figures = json.loads((RESULTS / f"real_{task}_by_margin.json").read_text(encoding="utf-8"))["figures"]
    for level in LEVELS:
        rows = figures[task][f"at_{level}"]
        if all(len(set(rows[name]["reached"].split(" of "))) == 1 for name in ("naive", "null_space")):
            return level, rows["null_space"]["far removed"]["percent"]
    raise SystemExit(f"{task}: no level is reached by all fits")


def row(run: Path) -> dict[str, Any]:
    """Return what a fit foresaw and what came."""
    task = run.parts[-3]
    found = json.loads((run / "null_space.json").read_text(encoding="utf-8"))
    before = [each["before training"] for each in found.values() if isinstance(each, dict)]
    worst = max(before, key=lambda each: each["typical"])
    level, share = removed(task)
    trusted, held = worst["outlook"] != "not likely to hold", share >= HALF
    return {
        "task": task,
        "response": round(worst["typical"], 2),
        "foreseen": worst["outlook"],
        "the default trusts it": "yes" if trusted else "no",
        "far removed": {"percent": share},
        "at": level,
        "right": "yes" if trusted == held else "no",
    }


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders .../TASK/METHOD/seed_S")
    options = parser.parse_args()
    rows = [row(run) for run in options.runs]
    right = sum(each["right"] == "yes" for each in rows)
    figures = {"tasks": {each["task"]: each for each in rows}, "right": f"{right} of {len(rows)}"}
    command = "python benchmarks/real/predicted.py OUT RUN..."
    write_json_atomic(options.out, record(command, this_machine(), [0], figures, None))


if __name__ == "__main__":
    main()
