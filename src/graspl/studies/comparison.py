"""What a study's fits say together, as one record: figures at matched adherence, areas and curves."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from graspl import __version__
from graspl.directions.basis import read_metadata
from graspl.reporting.tradeoff import Rows, base_adherence, relative_levels
from graspl.runs import RunFolder
from graspl.studies.plan import Fit
from graspl.studies.statistics import (
    SPILLOVER_SCORES,
    Cost,
    area_under,
    at_level,
    over_tasks,
    summarise,
)

AREA = (0.2, 0.9)
"""Range of adherence over which the area under the trade-off curve is taken."""


def comparison_of(
    fits: Sequence[Fit],
    baseline: str,
    levels: Sequence[float],
    norm_baseline: str | None = None,
    reference: str | None = None,
    *,
    relative: bool = False,
) -> dict[str, Any]:
    """Read the logs of finished fits and compare the methods.

    Args:
        fits: all done.
        baseline: name of the naive method.
        levels: of adherence.
        norm_baseline: naive method that is read off at equal norm of the update; `baseline` where None.
        reference: method whose share removed the others' is told from; none where None.
        relative: `levels` are shares of what the baseline gains (`relative_levels`), task by task.

    Returns:
        What `comparison.json` holds: `base` (the base model's figures), `adherence` (of each level), `levels` (`at_level`),
        `area` (mean spill-over over AREA) and `curves` (adherence and spill-over of each validation), the last three by
        method. In a study of several tasks all that is in `tasks`, by task, and `levels` and `area` are over tasks
        (`over_tasks`).
    """
    about = {"graspl": __version__, "baseline": baseline, "reference": reference}
    by_task: dict[str | None, list[Fit]] = {}
    for each in fits:
        by_task.setdefault(each.task, []).append(each)
    found = {
        str(task): _of_task(here, baseline, levels, norm_baseline, reference, relative)
        for task, here in by_task.items()
    }
    if list(by_task) == [None]:
        return about | found["None"]
    over = {
        level: over_tasks({task: each["levels"][level] for task, each in found.items()})
        for level in next(iter(found.values()))["levels"]
    }
    methods = dict.fromkeys(method for each in found.values() for method in each["area"])
    areas = {
        method: {task: each["area"][method]["mean"] for task, each in found.items() if method in each["area"]}
        for method in methods
    }
    return about | {
        "levels": over,
        "area": {
            method: {"tasks": means, **summarise(list(means.values()))._asdict()}
            for method, means in areas.items()
        },
        "tasks": found,
    }


def curves_by_fit(comparison: Mapping[str, Any]) -> dict[str, dict[str, list[list[float]]]]:
    """Return every fit's curve by method; a fit is named by its seed and, where there are several tasks, its task."""
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for task, each in comparison.get("tasks", {"": comparison}).items():
        for method, by_seed in each["curves"].items():
            named = {f"{task} {seed}".strip(): points for seed, points in by_seed.items()}
            curves.setdefault(method, {}).update(named)
    return curves


def as_csv(comparison: Mapping[str, Any]) -> str:
    """Return a comparison with one row a method, level and figure; the area's level is empty.

    In a study of several tasks their rows come first, and those over tasks, whose task is empty, last.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["task", "method", "adherence", "figure", "n", "mean", "sd", "low", "high"])
    for task, part in {**comparison.get("tasks", {}), "": comparison}.items():
        for level, methods in part["levels"].items():
            for method, found in methods.items():
                for name, summary in found.items():
                    if name not in _NO_SUMMARY:
                        writer.writerow([task, method, level, name, *summary.values()])
        for method, found in part["area"].items():
            summary = [value for name, value in found.items() if name not in _NO_SUMMARY]
            writer.writerow([task, method, "", "area", *summary])
    return file.getvalue()


_NO_SUMMARY = ("seeds", "tasks", "fits", "reached")


def _of_task(
    fits: Sequence[Fit],
    baseline: str,
    levels: Sequence[float],
    norm_baseline: str | None,
    reference: str | None,
    relative: bool,
) -> dict[str, Any]:
    logs: dict[str, dict[int, Rows]] = {}
    costs: dict[str, dict[int, Cost | None]] = {}
    naive_steps: dict[str, dict[int, int]] = {}
    for each in fits:
        run = RunFolder(each.folder)
        logs.setdefault(each.method, {})[each.seed] = run.read_metrics()
        # Steps of throw-away adapters are part of what a fit costs
        taken = int(read_metadata(run.directions).get("naive_steps", 0)) if run.directions.is_file() else 0
        naive_steps.setdefault(each.method, {})[each.seed] = taken
        costs.setdefault(each.method, {})[each.seed] = _cost(each)
    base = _base_figures(logs)
    low, high = relative_levels(AREA, list(logs.get(baseline, {}).values())) if relative else AREA
    areas = {
        method: {seed: area_under(rows, low, high) for seed, rows in by_seed.items()}
        for method, by_seed in logs.items()
    }
    actual = relative_levels(levels, list(logs.get(baseline, {}).values())) if relative else levels
    named = {f"{level:.2f}": value for level, value in zip(levels, actual, strict=True)}
    return {
        "base": base,
        "adherence": named,
        "levels": {
            name: at_level(logs, baseline, base, value, naive_steps, norm_baseline, reference, costs)
            for name, value in named.items()
        },
        "area": {
            method: {"seeds": by_seed, **summarise(list(by_seed.values()))._asdict()}
            for method, by_seed in areas.items()
        },
        "curves": {
            method: {seed: _curve(rows) for seed, rows in by_seed.items()} for method, by_seed in logs.items()
        },
    }


def _cost(fit: Fit) -> Cost | None:
    """Return a fit's cost with that of the fits it was made from; None where one was not counted."""
    start = 0.0
    for folder in fit.made_from.values():
        run = RunFolder(folder)
        spent, steps = run.read_cost(), max((row.get("step", 0) for row in run.read_metrics()), default=0)
        if spent is None:
            return None
        start += spent["start_flops"] + spent["step_flops"] * (steps + 1)
    own = RunFolder(fit.folder).read_cost()
    return None if own is None else Cost(start + own["start_flops"], own["step_flops"])


def _curve(rows: Rows) -> list[list[float]]:
    named = ("val/adherence", "val/spillover")
    return [[row[name] for name in named] for row in rows if all(name in row for name in named)]


def _base_figures(logs: Mapping[str, Mapping[int, Rows]]) -> dict[str, float | None]:
    """Return the base model's figures, which every validation has beside the adapter's."""
    every = (row for by_seed in logs.values() for rows in by_seed.values() for row in rows)
    row = next((row for row in every if base_adherence([row]) is not None), {})
    return {
        "adherence": base_adherence([row]),
        "spillover": next(
            (row[name] for name in map("val/unrelated/base_{}".format, SPILLOVER_SCORES) if name in row), None
        ),
        "coherence": row.get("val/unrelated/base_coherence"),
        "unrelated/good": row.get("val/unrelated/base_good"),
    }
