"""Curves of single fits of configs/real as figures for the pages: `python benchmarks/real/curves.py OUT RECORD... --note N`.

A RECORD is what `graspl compare` kept of a fit. OUT, one of results/*.json, gets a row a validation: margins, loss on general
text, and the shares of free answers in the trained style. The base model's row comes first.
"""

import argparse
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graspl.analysis.fits import kept_log
from graspl.runs import read_json, write_json_atomic

SCORES = {
    "task margin": "task/{}margin",
    "far margin": "far/{}margin",
    "near margin": "near/{}margin",
    "loss on general text": "general/{}loss",
}
ANSWERS = {
    "task answers": "free_task/{}judged",
    "far answers": "free_far/{}judged",
    "near answers": "free_near/{}judged",
}


def curve(path: Path) -> dict[str, dict[str, Any]]:
    """Return a row a validation by its step, the base model's by 0."""
    rows = [row for row in kept_log(path).rows if "val/task/margin" in row]
    return {"0": _row(0, rows[0], "base_")} | {
        str(step): _row(step, row, "") for row in rows for step in [round(row["step"]) + 1]
    }


def _row(step: int, row: dict[str, float], side: str) -> dict[str, Any]:
    scores = {title: round(row[f"val/{name.format(side)}"], 2) for title, name in SCORES.items()}
    rates = {
        title: {"percent": round(100 * row[f"val/{name.format(side)}"])} for title, name in ANSWERS.items()
    }
    return {"step": step, **scores, **rates}


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("records", type=Path, nargs="+", help="files that graspl compare kept")
    parser.add_argument("--note", required=True, help="what a reader must know beside the figures")
    options = parser.parse_args()
    found = [read_json(path, "figures", "run the study again") for path in options.records]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    record = {
        "command": " ".join(
            ["python benchmarks/real/curves.py", str(options.out), *map(str, options.records)]
        ),
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": found[0]["machine"],
        "seeds": sorted({seed for each in found for seed in each["seeds"]}),
        "figures": {path.stem: curve(path) for path in options.records},
        "note": options.note,
    }
    write_json_atomic(options.out, record)


if __name__ == "__main__":
    main()
