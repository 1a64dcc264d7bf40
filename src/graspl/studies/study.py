"""A study, run: settings are chosen on trials, then the reported fits run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graspl.errors import GrasplError
from graspl.studies.methods import Method, Settings, with_settings
from graspl.studies.plan import Fit, plan_fits
from graspl.studies.tuning import Tuning, plan_trials, tune
from graspl.studies.workers import run_missing


class Finished(NamedTuple):
    """A study that has run."""

    fits: list[Fit]
    """The reported fits that ended well."""
    failed: dict[str, str]
    """The reason by name of each fit or trial that failed."""
    chosen: dict[str, Settings | None]
    """Settings by tuned method; None where all its trials failed."""


@dataclass(frozen=True)
class Study:
    """Methods by seeds, and by tasks."""

    fit: Path
    """Configuration that all fits share."""
    methods: Mapping[str, Method]
    """By name."""
    seeds: Sequence[int]
    """Of the reported fits."""
    out: Path
    """The study's folder."""
    tasks: Mapping[str, Mapping[str, Any]]
    """Configuration of each task, by name; one task where empty."""
    jobs: int = 1
    """Worker processes."""

    def run(self, tuning: Tuning | None, levels: Sequence[float], relative_to: str | None) -> Finished:
        """Run the trials and fits that are missing.

        Args:
            tuning: how to choose settings; methods keep theirs where None.
            levels: of adherence where the study compares.
            relative_to: the method of whose gain the levels are shares; None for levels of adherence.

        Raises:
            GrasplError: the plan is impossible, or every fit failed.
        """
        self._plan({})  # find mistakes before anything runs
        chosen, failed = {}, {}
        if tuning is not None:
            trials = plan_trials(self.fit, self.methods, tuning, self.seeds, self.out, baseline=relative_to)
            chosen, failed = tune(trials, levels, relative_to, self.jobs, self.out)
        fits = self._plan(chosen)
        failed |= run_missing(fits, self.jobs, "fits")
        done = [each for each in fits if each.name not in failed]
        if not done:
            raise GrasplError(f"methods: every fit failed, e.g. {fits[0].name}: {failed[fits[0].name]}")
        return Finished(done, failed, chosen)

    def _plan(self, chosen: Mapping[str, Settings | None]) -> list[Fit]:
        """Plan the fits with the settings chosen, without the methods whose trials all failed."""
        configs = {
            name: with_settings(method.config, chosen.get(name) or {}, f"methods.{name}.tune")
            for name, method in self.methods.items()
            if chosen.get(name, {}) is not None
        }
        return plan_fits(self.fit, configs, self.seeds, self.out, self.tasks)
