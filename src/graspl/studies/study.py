"""A study, run: settings are chosen on trials, then the reported fits run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError
from graspl.studies.methods import Method, Settings, with_settings
from graspl.studies.plan import Fit, plan_fits
from graspl.studies.tuning import Tuning, plan_trials, tune
from graspl.studies.workers import run_missing


def run_study(
    base: Path,
    methods: Mapping[str, Method],
    seeds: Sequence[int],
    out: Path,
    tasks: Mapping[str, Mapping[str, Any]],
    tuning: Tuning | None,
    levels: Sequence[float],
    relative_to: str | None,
    jobs: int,
) -> tuple[list[Fit], dict[str, str], dict[str, Settings | None]]:
    """Run the trials and fits that are missing.

    Methods keep their settings without a `tuning`. Levels are shares of the gain of `relative_to`, else of adherence.

    Returns:
        The fits that ended well, the reason by name of each fit or trial that failed, and the settings by tuned method (None
        where all its trials failed; the method is then left out).

    Raises:
        GrasplError: the plan is impossible, or every fit failed.
    """
    plan_fits(base, _configs(methods, {}), seeds, out, tasks)  # find mistakes before anything runs
    chosen, failed = {}, {}
    if tuning is not None:
        trials = plan_trials(base, methods, tuning, seeds, out, baseline=relative_to)
        chosen, failed = tune(trials, levels, relative_to, jobs, out)
    fits = plan_fits(base, _configs(methods, chosen), seeds, out, tasks)
    failed |= run_missing(fits, jobs, "fits")
    done = [each for each in fits if each.name not in failed]
    if not done:
        raise GrasplError(f"methods: every fit failed, e.g. {fits[0].name}: {failed[fits[0].name]}")
    return done, failed, chosen


def _configs(methods: Mapping[str, Method], chosen: Mapping[str, Settings | None]) -> dict[str, Any]:
    return {
        name: with_settings(method.config, chosen.get(name) or {}, f"methods.{name}.tune")
        for name, method in methods.items()
        if chosen.get(name, {}) is not None
    }
