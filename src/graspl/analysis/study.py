"""What a study's fits say together, as one record: figures at matched adherence, areas and curves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from graspl import __version__
from graspl.analysis.fits import Logs, Measured, StudyFit, at_level, over_tasks, read_log
from graspl.analysis.intervals import summarise
from graspl.analysis.tradeoff import area_under, base_figures, curve, relative_levels

AREA = (0.2, 0.9)  # Range of adherence for the area under the trade-off curve


def comparison_of(
    fits: Sequence[StudyFit],
    baseline: str,
    levels: Sequence[float],
    norm_baseline: str | None = None,
    reference: str | None = None,
    *,
    relative: bool = False,
    measured: Measured = Measured(),  # noqa: B008 - never changed
) -> dict[str, Any]:
    """Read the logs of finished fits and compare the methods, as in `comparison.json`.

    With `relative`, levels are shares of what the baseline gains (`relative_levels`), task by task.

    Returns:
        `base` (the base model's figures), `adherence` (of each level) and, by method, `levels` (`at_level`), `area` (mean
        spill-over over AREA), `curves` (adherence and spill-over of each validation) and `judged` (rates by suite and seed,
        where run folders have them). In a study of several tasks `tasks` holds this for each task; `levels` and `area` are
        then over tasks (`over_tasks`).
    """
    about = {"graspl": __version__, "baseline": baseline, "reference": reference, "measured": vars(measured)}
    by_task: dict[str | None, list[StudyFit]] = defaultdict(list)
    for each in fits:
        by_task[each.task].append(each)
    found = {}
    for task, here in by_task.items():
        logs: dict[str, dict[int, Any]] = defaultdict(dict)
        for each in here:
            logs[each.method][each.seed] = read_log(each, measured)
        found[str(task)] = _of_task(
            logs, baseline, levels, norm_baseline, reference, relative, measured.others
        )
        judged = _judged(logs)
        found[str(task)] |= {"judged": judged} if judged else {}
    if list(by_task) == [None]:
        return about | found["None"]
    names = next(iter(found.values()))["levels"]
    over = {name: over_tasks({task: each["levels"][name] for task, each in found.items()}) for name in names}
    return about | {"levels": over, "area": _area_over_tasks(found), "tasks": found}


def _of_task(
    logs: Logs,
    baseline: str,
    levels: Sequence[float],
    norm_baseline: str | None,
    reference: str | None,
    relative: bool,
    others: Sequence[str],
) -> dict[str, Any]:
    every = [row for by_seed in logs.values() for log in by_seed.values() for row in log.rows]
    base = base_figures(every, others)
    naive = [log.rows for log in logs.get(baseline, {}).values()]
    low, high = relative_levels(AREA, naive) if relative else AREA
    areas = {
        method: {seed: area_under(log.rows, low, high) for seed, log in by_seed.items()}
        for method, by_seed in logs.items()
    }
    actual = relative_levels(levels, naive) if relative else levels
    named = {f"{level:.2f}": value for level, value in zip(levels, actual, strict=True)}
    return {
        "base": base,
        "adherence": named,
        "levels": {
            name: at_level(logs, baseline, base, value, norm_baseline, reference, others)
            for name, value in named.items()
        },
        "area": {method: {"seeds": each, **_summary(each)} for method, each in areas.items()},
        "curves": {
            method: {seed: list(map(list, curve(log.rows))) for seed, log in by_seed.items()}
            for method, by_seed in logs.items()
        },
    }


def _area_over_tasks(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    means: dict[str, dict[str, float | None]] = defaultdict(dict)
    for task, each in found.items():
        for method, area in each["area"].items():
            means[method][task] = area["mean"]
    return {method: {"tasks": each, **_summary(each)} for method, each in means.items()}


def _judged(logs: Logs) -> dict[str, dict[str, Any]]:
    """Return the judged rates by method and suite, over the seeds that were judged."""
    seeds: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for method, by_seed in logs.items():
        for seed, log in by_seed.items():
            for suite, each in log.judged.items():
                if each["rate"] is None:
                    continue
                seeds[method][f"{suite}: {each['of']}"][seed] = each["rate"]
    return {
        method: {suite: {"seeds": each, **_summary(each)} for suite, each in suites.items()}
        for method, suites in seeds.items()
    }


def _summary(values: Mapping[Any, float | None]) -> dict[str, Any]:
    return summarise(list(values.values()))._asdict()
