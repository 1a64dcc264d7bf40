"""The candidates for the default as figures for the pages: `python benchmarks/candidates.py STUDY`.

STUDY/comparison.json is what `graspl compare` wrote of the embedded organism (configs/organism/candidates.yaml); records of
the fits are in results/candidates. Writes results/candidates.json: at each level of the embedded organism a row a method, and
of other worlds, whose tasks hardly any fit learns, where each fit's adherence is highest.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from graspl.analysis.fits import kept_log
from graspl.runs import write_json_atomic

NOTE = (
    "travel_41 and the other tasks of worlds 41 and 42 were laid over candidates.yaml, with one seed (100 on the development "
    "split, 0 on the evaluation split); capitals is a development fit of configs/real"
)
ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(Path(__file__).parent / "real"))

from record import record, this_machine  # noqa: E402 - beside the other studies' scripts


def at_levels(study: Path) -> dict[str, Any]:
    """Return a row a method for each level."""
    levels = json.loads((study / "comparison.json").read_text(encoding="utf-8"))["levels"]
    return {
        f"at_{level}": {
            name: {
                "method": name,
                "reached": f"{found['reached']} of {found['fits']}",
                "removed, %": None
                if found["removed"]["mean"] is None
                else round(100 * found["removed"]["mean"]),
                "steps over naive's": None
                if found["step_ratio"]["mean"] is None
                else round(found["step_ratio"]["mean"], 2),
            }
            for name, found in methods.items()
        }
        for level, methods in levels.items()
    }


def farthest(records: Path) -> dict[str, Any]:
    """Return where each method's adherence is highest, and its spill-over there."""
    rows = {}
    for path in sorted(records.glob("*.json")):
        measured = [row for row in kept_log(path).rows if "val/adherence" in row]
        best = max(measured, key=lambda row: row["val/adherence"])
        name = path.stem.rpartition("_")[0]
        rows[name] = {
            "method": name,
            "highest adherence": round(best["val/adherence"], 2),
            "spill-over there": round(best["val/spillover"], 2),
            "step": int(best["step"]) + 1,
        }
    return rows


def responses(studies: list[Path]) -> dict[str, Any]:
    """Return what A read before training on each task, from the first fit with a null-space start that wrote it down."""
    rows: dict[str, Any] = {}
    for path in sorted(each for study in studies for each in study.glob("*/*/seed_*/null_space.json")):
        kept, task = json.loads(path.read_text(encoding="utf-8")), path.parts[-4]
        shares = {name: kept[name]["before training"]["typical"] for name in ("text", "own_text")}
        rows.setdefault(
            task, {"task": task, **{name.replace("_", " "): round(each, 2) for name, each in shares.items()}}
        )
    return rows


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path, help="folder of the study")
    parser.add_argument(
        "--starts", type=Path, nargs="*", default=[], help="more studies with null-space starts"
    )
    options = parser.parse_args()
    fits = ROOT / "results" / "candidates"
    figures = {"embedded": at_levels(options.study)}
    others = sorted(each for each in fits.iterdir() if each.is_dir() and each.name != "embedded")
    figures |= {each.name: farthest(each) for each in others}
    # A record of a fit does not have them, so those of folders that are gone stay
    name, before = "response before training", ROOT / "results" / "candidates.json"
    kept = json.loads(before.read_text(encoding="utf-8"))["figures"][name] if before.exists() else {}
    figures[name] = kept | responses([options.study, *options.starts])
    command = (
        "graspl compare --config configs/organism/compare.yaml --config configs/organism/candidates.yaml"
    )
    write_json_atomic(
        ROOT / "results" / "candidates.json", record(command, this_machine(), [100, 101], figures, NOTE)
    )


if __name__ == "__main__":
    main()
