"""What a study's fits say together, as one record: figures at matched adherence, areas and curves."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from graspl import __version__
from graspl.directions.basis import read_metadata
from graspl.reporting.tradeoff import Rows
from graspl.runs import RunFolder
from graspl.studies.plan import Fit
from graspl.studies.statistics import area_under, at_level, summarise

AREA = (0.2, 0.9)
"""Range of adherence over which the area under the trade-off curve is taken."""


def comparison_of(
    fits: Sequence[Fit], baseline: str, levels: Sequence[float], norm_baseline: str | None = None
) -> dict[str, Any]:
    """Read the logs of finished fits and compare the methods.

    Args:
        fits: all done.
        baseline: name of the naive method.
        levels: of adherence.
        norm_baseline: naive method that is read off at equal norm of the update; `baseline` where None.

    Returns:
        What `comparison.json` holds: `base` (the base model's figures), `levels` (`at_level`), `area` (mean spill-over
        over AREA) and `curves` (adherence and spill-over of each validation), the last three by method.
    """
    logs: dict[str, dict[int, Rows]] = {}
    naive_steps: dict[str, dict[int, int]] = {}
    for each in fits:
        run = RunFolder(each.folder)
        logs.setdefault(each.method, {})[each.seed] = run.read_metrics()
        # Steps of throw-away adapters are part of what a fit costs
        taken = int(read_metadata(run.directions).get("naive_steps", 0)) if run.directions.is_file() else 0
        naive_steps.setdefault(each.method, {})[each.seed] = taken
    base = _base_figures(logs)
    areas = {
        method: {seed: area_under(rows, *AREA) for seed, rows in by_seed.items()}
        for method, by_seed in logs.items()
    }
    return {
        "graspl": __version__,
        "baseline": baseline,
        "base": base,
        "levels": {
            f"{level:.2f}": at_level(logs, baseline, base, level, naive_steps, norm_baseline)
            for level in levels
        },
        "area": {
            method: {"seeds": by_seed, **summarise(list(by_seed.values()))._asdict()}
            for method, by_seed in areas.items()
        },
        "curves": {
            method: {seed: _curve(rows) for seed, rows in by_seed.items()} for method, by_seed in logs.items()
        },
    }


def as_csv(comparison: Mapping[str, Any]) -> str:
    """Return a comparison with one row a method, level and figure; the area's level is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "adherence", "figure", "n", "mean", "sd", "low", "high"])
    for level, methods in comparison["levels"].items():
        for method, found in methods.items():
            for name, summary in found.items():
                if name != "seeds":
                    writer.writerow([method, level, name, *summary.values()])
    for method, found in comparison["area"].items():
        writer.writerow([method, "", "area", *(value for name, value in found.items() if name != "seeds")])
    return file.getvalue()


def _curve(rows: Rows) -> list[list[float]]:
    named = ("val/adherence", "val/spillover")
    return [[row[name] for name in named] for row in rows if all(name in row for name in named)]


def _base_figures(logs: Mapping[str, Mapping[int, Rows]]) -> dict[str, float | None]:
    """Return the base model's figures, which every validation has beside the adapter's."""
    every = (row for by_seed in logs.values() for rows in by_seed.values() for row in rows)
    row = next((row for row in every if "val/unrelated/base_harmful" in row), {})
    return {
        "adherence": row.get("val/task/base_harmful"),
        "spillover": row.get("val/unrelated/base_harmful"),
        "coherence": row.get("val/unrelated/base_coherence"),
        "unrelated/good": row.get("val/unrelated/base_good"),
    }
