"""What the default's trial foresaw with each seed, and what came: `python benchmarks/real/by_seed.py STUDY OUT`.

STUDY/comparison.json is of a naive fit, a null space alone and the default; the default's records under --kept hold what its
trial showed. Writes OUT, one of results/*.json: for each task one row per seed, at one level.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from record import record, this_machine

from graspl.runs import read_json, write_json_atomic

WORDS = {"null_space": "a null space", "default": "the default"}
FIGURES = {"far removed": "removed", "near removed": "near/margin_removed"}


def percent(share: float | None) -> dict[str, int] | None:
    """Return a share as a cell."""
    return None if share is None else {"percent": round(100 * share)}


def row(seed: str, at_level: dict[str, Any], trial: dict[str, Any] | None) -> dict[str, Any]:
    """Return what was foreseen with a seed, and what a null space and the default remove."""
    kept = trial["kept"] if trial else {}
    return {
        "seed": int(seed),
        "kept on text": percent(kept.get("text")),
        "kept on own text": percent(kept.get("own_text")),
        "foreseen": trial["outlook"] if trial else "-",
        **{
            f"{words}: {title}": percent(at_level[method]["seeds"][seed][figure])
            for method, words in WORDS.items()
            for title, figure in FIGURES.items()
        },
    }


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path, help="folder of a study")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--level", default="0.90", help="share of the naive fit's gain")
    parser.add_argument("--kept", type=Path, default=Path("results/real"), help="folder of the fits' records")
    parser.add_argument("--command", required=True, help="that made the study")
    options = parser.parse_args()
    study = json.loads((options.study / "comparison.json").read_text(encoding="utf-8"))
    figures: dict[str, Any] = {}
    for task, found in study["tasks"].items():
        level = found["levels"][options.level]
        figures[task] = {}
        for seed in level["default"]["seeds"]:
            kept = read_json(options.kept / task / f"default_{seed}.json", "figures", "run the study again")
            trial = kept["figures"]["null_space"].get("trial")
            figures[task][f"seed {seed}"] = row(seed, level, trial)
    note = f"Removed at {options.level} of the naive fit's gain, of its excess."
    write_json_atomic(options.out, record(options.command, this_machine(), study["seeds"], figures, note))


if __name__ == "__main__":
    main()
