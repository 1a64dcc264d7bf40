"""What fits of a real model spill over at equal skill: `python benchmarks/real/summary.py` writes results/real_capitals.json.

The skill is the task margin. A method's curve is read where it first reaches a share of what the naive fit of the same seed
gains over its whole run; between two measured steps the curve is a straight line. The excess of a suite is its margin above
the base model's; `removed` is the share of the naive fit's excess at the same skill that the method does not have.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graspl.analysis.intervals import summarise
from graspl.analysis.tradeoff import Rows, figures_at
from graspl.runs import write_json_atomic

NOTE = (
    "naive 0, random_basis 0 and contrastive_5e-4_40_steps ran before the study's first commit. The last is contrastive_5e-4 "
    "with --steps 40, renamed by hand; it solved the same eigenproblem by a Cholesky factor and torch instead of scipy. "
    "Answers to task questions were kept from naive 2 on."
)
LEVELS = (0.5, 0.8, 0.9)
FIGURES = ("step", "far", "near", "general_loss")


def value(point: dict[str, Any], name: str) -> float:
    """Return a figure of one measured step."""
    found = point[name]
    return found["margin"] if isinstance(found, dict) else found


def log_of(curve: Sequence[dict[str, Any]]) -> Rows:
    """Return a curve in the form of a fit's log, with the task margin as adherence."""
    return [
        {"step": point["step"], "val/adherence": value(point, "task")}
        | {f"val/{name}": value(point, name) for name in ("far", "near", "general_loss")}
        for point in curve
    ]


def row(naive: list[dict[str, Any]], curve: list[dict[str, Any]], share: float) -> dict[str, float | None]:
    """Return one fit's figures at a share of the naive fit's gain, and how they compare with the naive fit's there."""
    base = naive[0]
    best = max(value(point, "task") for point in naive)
    level = value(base, "task") + share * (best - value(base, "task"))
    ours, theirs = (figures_at(log_of(each), level, FIGURES) for each in (curve, naive))
    if ours["step"] is None or theirs["step"] is None:
        return dict.fromkeys(("steps", "step_ratio", "far_removed", "near_removed", "general_change"))
    found: dict[str, float | None] = {"steps": ours["step"], "step_ratio": ours["step"] / theirs["step"]}
    for name in ("far", "near"):
        excess = theirs[name] - value(base, name)
        found[f"{name}_removed"] = 1 - (ours[name] - value(base, name)) / excess if excess > 0 else None
    return found | {"general_change": ours["general_loss"] - base["general_loss"]}


def capitals(answers: Sequence[str]) -> float:
    """Return the share of answers of which more than half of the letters are capitals."""
    counted = [[c.isupper() for c in answer if c.isalpha()] for answer in answers]
    return sum(sum(each) > len(each) / 2 for each in counted) / len(counted)


def percent(values: Sequence[float | None]) -> dict[str, int] | None:
    """Return a mean share as a cell of a table, with Student's interval where there are two or more."""
    found = summarise(values)
    if found.mean is None:
        return None
    ends = {} if found.low is None or found.high is None else {"low": found.low, "high": found.high}
    return {name: round(100 * each) for name, each in {"percent": found.mean, **ends}.items()}


def shown(method: str, rows: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """Return one method's row of the table at a level."""
    ratio, change = (
        summarise([each[name] for each in rows]).mean for name in ("step_ratio", "general_change")
    )
    return {
        "method": method,
        "fits": len(rows),
        "far removed": percent([each["far_removed"] for each in rows]),
        "near removed": percent([each["near_removed"] for each in rows]),
        "steps over naive's": None if ratio is None else round(ratio, 2),
        "change of the loss on general text": None if change is None else round(change, 3),
    }


def end(fits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return where a method's fits ended: the skill, and how many free answers are in capitals."""
    last = [fit["curve"][-1] for fit in fits]
    margins = [value(point, "task") for point in last]
    return {
        "method": fits[0]["method"],
        "fits": len(fits),
        "steps": fits[0]["steps"],
        "task margin": round(sum(margins) / len(margins), 2),
        **{
            f"{suite} answers in capitals": percent(
                [capitals(point["answers"][suite]) if suite in point["answers"] else None for point in last]
            )
            for suite in ("task", "far", "near")
        },
    }


def main() -> None:
    """Read the fits, and write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--fits", type=Path, default=Path("results/real/first_look"), help="folder of the JSON files"
    )
    parser.add_argument("--out", type=Path, default=Path("results/real_capitals.json"), help="file to write")
    options = parser.parse_args()
    fits: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    about: dict[str, Any] = {}
    for path in sorted(options.fits.glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        fits[about["figures"]["method"]][about["figures"]["seed"]] = about["figures"]
    naive = fits["naive"]  # Of the same seeds, or of more
    figures: dict[str, Any] = {}
    for share in LEVELS:
        figures[f"at_{share:.2f}"] = {
            method: shown(
                method, [row(naive[seed]["curve"], fit["curve"], share) for seed, fit in seeds.items()]
            )
            for method, seeds in fits.items()
            if method != "naive"
        }
    figures["ends"] = {method: end(list(seeds.values())) for method, seeds in fits.items()}
    for name, table in figures.items():
        for method, each in table.items():
            print(name, method, each)
    record = {
        "command": "python benchmarks/real/summary.py",
        "commit": about["commit"],
        "date": datetime.now(UTC).date().isoformat(),
        "machine": about["machine"],
        "seeds": sorted({seed for seeds in fits.values() for seed in seeds}),
        "figures": figures,
        "note": NOTE,
    }
    write_json_atomic(options.out, record)


if __name__ == "__main__":
    main()
