"""A study of configs/real as figures for the pages: `python benchmarks/real/tables.py STUDY OUT`.

Reads STUDY/comparison.json, which `graspl compare` wrote, and writes OUT, one of results/*.json: for each task and level a
row a method, and the shares of free answers where the fits ended. Where more than all of the excess is removed, the method
lies below the base model.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from record import record, this_machine

from graspl.analysis.fits import kept_log
from graspl.runs import write_json_atomic

# Above the base model's share, which is 0 for a style that it does not have
ANSWERS = {"far answers": "free_far/judged_change", "near answers": "free_near/judged_change"}
PLAIN = {"steps over naive's": "step_ratio", "operations over naive's": "cost_ratio"}


def percent(summary: dict[str, Any] | None) -> dict[str, int] | None:
    """Return a mean share as a cell, with its interval where there is one."""
    if not summary or summary["mean"] is None:
        return None
    ends = {} if summary["low"] is None else {"low": summary["low"], "high": summary["high"]}
    return {name: round(100 * value) for name, value in {"percent": summary["mean"], **ends}.items()}


def rounded(summary: dict[str, Any] | None, digits: int) -> float | None:
    """Return a mean with so many digits."""
    return None if not summary or summary["mean"] is None else round(summary["mean"], digits)


def at_level(methods: dict[str, Any], near: str) -> dict[str, Any]:
    """Return a row a method at one level; `near` is the score of near questions that goes with the study's spill-over."""
    removed = {"far removed": "removed", "near removed": f"{near}_removed"}
    return {
        name: {
            "method": name,
            "reached": f"{found['step']['n']} of {found['fits']}",
            **{title: percent(found.get(figure)) for title, figure in removed.items()},
            **{title: percent(found[figure]) for title, figure in ANSWERS.items() if figure in found},
            **{title: rounded(found.get(figure), 2) for title, figure in PLAIN.items()},
            "change of the loss on general text": rounded(found.get("general/loss_change"), 3),
        }
        for name, found in methods.items()
    }


def answered(task: dict[str, Any]) -> dict[str, Any]:
    """Return the shares of free answers in the trained style, a row a method."""
    return {
        name: {"method": name, **{suite.split(":")[0]: percent(each) for suite, each in suites.items()}}
        for name, suites in task.get("judged", {}).items()
    }


def ends(records: Path) -> dict[str, Any]:
    """Return where a task's fits ended, a row a method: the base model's margins and theirs, means over seeds."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for path in sorted(records.glob("*.json")):
        last = [row for row in kept_log(path).rows if "val/task/margin" in row][-1]
        found[path.stem.rpartition("_")[0]].append(last)
    scores = ("task/margin", "far/margin", "near/margin", "general/loss")
    rows = {"base": {"method": "base", **_means(next(iter(found.values())), scores, "base_")}}
    return rows | {name: {"method": name, **_means(each, scores, "")} for name, each in found.items()}


def _means(rows: list[dict[str, float]], scores: Sequence[str], side: str) -> dict[str, float]:
    named = {score: f"val/{score.replace('/', '/' + side)}" for score in scores}
    return {score: round(fmean(row[name] for row in rows), 3) for score, name in named.items()}


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path, help="folder of graspl compare")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--command", required=True, help="that made the study")
    parser.add_argument("--kept", type=Path, required=True, help="folder with the records of its fits")
    parser.add_argument(
        "--near", default="near/margin", help="score of near questions, like the study's spill-over"
    )
    parser.add_argument("--note", help="what a reader must know beside the figures")
    options = parser.parse_args()
    found = json.loads((options.study / "comparison.json").read_text(encoding="utf-8"))
    figures: dict[str, Any] = {}
    for name, task in found["tasks"].items():
        figures[name] = {
            f"at_{level}": at_level(methods, options.near) for level, methods in task["levels"].items()
        }
        figures[name] |= {"ends": ends(options.kept / name), "free answers": answered(task)}
    write_json_atomic(
        options.out, record(options.command, this_machine(), found["seeds"], figures, options.note)
    )


if __name__ == "__main__":
    main()
