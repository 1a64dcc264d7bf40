"""Curves of single fits of configs/real as figures for the pages: `python benchmarks/real/curves.py OUT RECORD... --note N`.

A RECORD is what `graspl compare` kept of a fit. OUT, one of results/*.json, gets a row a validation: margins, loss on general
text, and, where a rule judged them, the shares of free answers in the trained style. The base model's row comes first.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from record import record

from graspl.analysis.fits import kept_log
from graspl.runs import read_json, write_json_atomic

LOSS = "general/{}loss"  # To a third digit: its bound is 0.02
SCORES = {
    "task margin": "task/{}margin",
    "far margin": "far/{}margin",
    "near margin": "near/{}margin",
    "loss on general text": LOSS,
}
ANSWERS = {
    "task answers": "free_task/{}judged",
    "far answers": "free_far/{}judged",
    "near answers": "free_near/{}judged",
}


def curve(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return a row a validation by its step, the base model's by 0; means over the records."""
    logs = [[row for row in kept_log(path).rows if "val/task/margin" in row] for path in paths]
    found = {"0": _row(0, [log[0] for log in logs], "base_")}
    for rows in zip(*logs, strict=True):
        (step,) = {round(row["step"]) + 1 for row in rows}
        found[str(step)] = _row(step, rows, "")
    return found


def _row(step: int, rows: Sequence[dict[str, float]], side: str) -> dict[str, Any]:
    def mean(name: str) -> float:
        return fmean(row[f"val/{name.format(side)}"] for row in rows)

    scores = {title: round(mean(name), 3 if name == LOSS else 2) for title, name in SCORES.items()}
    judged = {title: name for title, name in ANSWERS.items() if f"val/{name.format(side)}" in rows[0]}
    rates = {title: {"percent": round(100 * mean(name))} for title, name in judged.items()}
    return {"step": step, **scores, **rates}


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("records", type=Path, nargs="+", help="files that graspl compare kept")
    parser.add_argument("--mean", action="store_true", help="a curve a method, the mean over its seeds")
    parser.add_argument("--note", required=True, help="what a reader must know beside the figures")
    options = parser.parse_args()
    found = [read_json(path, "figures", "run the study again") for path in options.records]
    given = [str(options.out), *map(str, options.records), *(["--mean"] if options.mean else [])]
    command = " ".join(["python benchmarks/real/curves.py", *given])
    seeds = sorted({seed for each in found for seed in each["seeds"]})
    named: dict[str, list[Path]] = defaultdict(list)
    for path in options.records:
        named[path.stem.rpartition("_")[0] if options.mean else path.stem].append(path)
    figures = {name: curve(paths) for name, paths in named.items()}
    write_json_atomic(options.out, record(command, found[0]["machine"], seeds, figures, options.note))


if __name__ == "__main__":
    main()
