"""One self-contained HTML page about runs: it loads nothing and escapes every text."""

from collections import Counter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from graspl.analysis.comparison import Comparison
from graspl.analysis.runs import trusted
from graspl.analysis.verdicts import key_points, verdict
from graspl.errors import GrasplError
from graspl.reporting.environment import heat_map, render
from graspl.reporting.figures import spectra_figure, tradeoff_figure
from graspl.reporting.tables import matched_columns
from graspl.runs import DirectionsFiles, RunFolder
from graspl.runs.files import read_json
from graspl.runs.forms import EACH, Form, misfit

PROMPTS_SHOWN = 24  # For each suite; generations.jsonl has all


# Forms of the reports beside directions, see `graspl.runs.forms`
ASSUMPTIONS = {"verdict": str, "reason": str, "layers": {EACH: {EACH: float | None}}}
BEFORE = {"typical": float | None, "outlook": str | None}
MOVED = [{"deviations": float, "text": str}]
EXPLANATION = {
    "directions": str, "sentence": str, "layer": str, "along": MOVED, "against": MOVED,
    "lens": [{"layer": str, "direction": int, "likelier": [str], "unlikelier": [str]}],
    "steering": [{"prompt": str, "answers": [[str]]}],
}  # fmt: skip


def render_page(comparison: Comparison) -> str:
    """Return the page as HTML text; the texts that models wrote are escaped."""
    examples, assumptions = _examples(comparison), _assumptions(comparison)
    null_spaces, commands = _null_spaces(comparison), any(run.commands for run in comparison.runs)
    meanings = [
        told
        for each in _directions(comparison)
        if (told := _beside(each, each.explanation, EXPLANATION)) is not None
    ]
    sections = ["Runs", "Trade-off", *(["Judged"] if comparison.judged else []), "Weights"]
    sections += [f"Meaning {number}" for number in range(1, len(meanings) + 1)]
    sections += [
        name for name, there in (("Assumptions", assumptions or null_spaces), ("Answers", examples)) if there
    ]
    return render(
        "page.html",
        {
            "comparison": comparison,
            "metrics": comparison.figures,
            "matched_columns": matched_columns(comparison),
            "headline": key_points(comparison),
            "verdict": verdict(comparison),
            "commands": commands,
            "sections": [*sections, *(["Run facts"] if commands else []), "Files"],
            "tradeoff": Markup(tradeoff_figure(comparison)),
            "spectra": Markup(spectra_figure(comparison.runs)),
            "maps": _maps(comparison),
            "meanings": meanings,
            "assumptions": assumptions,
            "null_spaces": null_spaces,
            "examples": examples,
            "suites": list(dict.fromkeys(str(row["suite"]) for row in examples)),
        },
    )


def _maps(comparison: Comparison) -> list[dict[str, Any]]:
    """Return heat maps for every run with an adapter: how much one direction dominates each site's update, and reliance."""
    found = []
    for run in comparison.runs:
        sites = run.evaluation.get("sites", {})
        shares = {name: _share(site["singular_values"]) for name, site in sites.items()}
        if any(shares.values()):
            found.append(heat_map(f"{run.name}: sigma 1 over ||dW||", shares, highest=1.0))
            rho = {name: site["rho"] for name, site in sites.items() if "rho" in site}
            if rho and not comparison.rho_left_out:
                found.append(heat_map(f"{run.name}: reliance rho", rho, highest=1.0))
    return found


def _share(values: list[float]) -> float:
    size = sum(value**2 for value in values) ** 0.5
    return values[0] / size if size > 0 else 0.0


def _directions(comparison: Comparison) -> list[DirectionsFiles]:
    """Return what lies beside the directions files with which runs were evaluated."""
    named = (run.evaluation.get("directions") for run in comparison.runs)
    return [DirectionsFiles(name) for name in dict.fromkeys(named) if name and Path(name).suffix]


def _beside(files: DirectionsFiles, place: Path, form: Form) -> dict[str, Any] | None:
    """Return a report beside directions; None where there is none, or none to trust."""
    return (
        files.read(place, form)
        if trusted(RunFolder(files.path.parent), place, fix="identify again")
        else None
    )


def _assumptions(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the assumption reports of the runs' directions, with their columns."""
    found = []
    for each in _directions(comparison):
        report = _beside(each, each.assumptions, ASSUMPTIONS)
        if report is not None:
            every = [set(layer) for layer in report["layers"].values()]
            fields = [
                name
                for name in next(iter(report["layers"].values()), {})
                if all(name in each for each in every)
            ]
            found.append({**report, "directions": str(each.path), "fields": fields})
    return found


def _null_spaces(comparison: Comparison) -> list[dict[str, Any]]:
    """Return what the runs' null-space starts say of each kind of general text."""
    found = []
    for run in (run for run in comparison.runs if run.folder.null_space.exists()):
        if not trusted(run.folder, run.folder.null_space, fix="fit again"):
            continue
        kept = read_json(run.folder.null_space, "responses", "fit again", {})
        for name in ("text", "own_text"):
            if name in kept:
                before = kept[name].get("before training", {}) if isinstance(kept[name], dict) else {}
                wrong = misfit(kept[name], {"typical": float}) or misfit(before, BEFORE)
                if wrong is not None:
                    raise GrasplError(f"{run.folder.null_space}: {name}: {wrong}; fit again")
                told = {"run": run.name, "text": name.replace("_", " "), "after": kept[name]["typical"]}
                found.append(told | {key: before.get(key) for key in ("typical", "outlook")})
    return found


def _examples(comparison: Comparison) -> list[dict[str, object]]:
    """Return prompts that some run answered, with the first answer of each run."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    shown: Counter[str] = Counter()
    for run in comparison.runs:
        for row in run.generations:
            key = (str(row["suite"]), str(row.get("prompt", "")))
            if key not in rows and shown[key[0]] < PROMPTS_SHOWN:
                rows[key] = {}
                shown[key[0]] += 1
            if key in rows:
                rows[key].setdefault(run.name, str(row["answer"]))
    return [{"suite": name, "prompt": prompt, "answers": found} for (name, prompt), found in rows.items()]
