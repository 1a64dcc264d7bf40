"""Settings of a study's methods, chosen on development data with the same number of trials for each method."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graspl.analysis.tradeoff import Rows, relative_levels, spoilt
from graspl.errors import GrasplError
from graspl.runs import RunFolder, write_json_atomic
from graspl.studies.methods import Method, Settings, merged, with_settings
from graspl.studies.plan import TUNING, Fit, sources_in
from graspl.studies.workers import Engine, run_missing


@dataclass
class Tuning:
    """How to choose settings."""

    trials: int
    """Settings to try for each method with `tune`."""
    seeds: list[int]
    """Seeds of these fits; none may be a reported seed."""
    over: dict = field(default_factory=dict)  # type: ignore[type-arg] - with parameters jsonargparse would build what it names
    """Put over every method's configuration: the development data."""
    seed: int = 0
    """Seed of the draw, where a method's values have more combinations than there are trials."""

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.seeds:
            raise GrasplError("tuning: needs at least one trial and one seed")


@dataclass(frozen=True)
class Trial:
    """One setting of one method."""

    method: str  # Its name
    settings: Settings  # Values to try
    fits: list[Fit]  # One for each seed


def plan_trials(
    base: Path,
    methods: Mapping[str, Method],
    tuning: Tuning,
    reported: Sequence[int],
    out: Path,
    baseline: str | None = None,
) -> list[Trial]:
    """Return the trials, in `<out>/tuning/<method>/<trial>/seed_<seed>`.

    A method without `tune` is not tuned. It is fitted once where others are made from it, or where it is the `baseline` that
    levels are relative to.
    """
    both = sorted(set(tuning.seeds) & set(reported))
    if both:
        raise GrasplError(f"tuning.seeds: {both[0]} is among seeds, which are reported; take others")
    needed = {other for method in methods.values() if method.tune for other in sources_in(method.config)}
    needed |= set() if baseline is None else {baseline}
    tuned = sorted(name for name in needed if name in methods and methods[name].tune)
    if tuned:
        origin = f"methods.{tuned[0]}.tune"
        raise GrasplError(f"{origin}: another method is made from its fits; give it one setting")
    trials = []
    for name, method in methods.items():
        tried = settings_of(name, method.tune, tuning) if method.tune else [{}] if name in needed else []
        config = merged(merged(method.config, tuning.over), method.development)
        for index, settings in enumerate(tried):
            whole = with_settings(config, settings, f"methods.{name}.tune")
            fits = []
            for seed in tuning.seeds:
                sources = {other: out / TUNING / other / "0" / f"seed_{seed}" for other in sources_in(whole)}
                folder = out / TUNING / name / str(index) / f"seed_{seed}"
                fits.append(Fit(name, seed, folder, base, whole, trial=index, made_from=sources))
            trials.append(Trial(name, settings, fits))
    return trials


def settings_of(method: str, tune: Mapping[str, Sequence[Any]], tuning: Tuning) -> list[Settings]:
    """Return as many settings as there are trials: every combination of a method's values, or a draw from them."""
    for key, values in tune.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise GrasplError(f"methods.{method}.tune.{key}: give a list of values to choose from")
    every = [dict(zip(tune, values, strict=True)) for values in itertools.product(*tune.values())]
    if len(every) < tuning.trials:
        found = f"{len(every)} settings for {tuning.trials} trials"
        raise GrasplError(f"methods.{method}.tune: gives {found}; give more values")
    chosen = random.Random(f"{tuning.seed} trials").sample(range(len(every)), tuning.trials)
    return [every[index] for index in sorted(chosen)]


def tune(
    trials: Sequence[Trial], levels: Sequence[float], baseline: str | None, engine: Engine, out: Path
) -> tuple[dict[str, Settings | None], dict[str, str]]:
    """Run the trials, write `tuning.json`, and return the settings by method and the reasons by name of failed fits.

    Levels are of adherence, or shares of the baseline's gain where one is named. Settings are None where every trial failed.
    """
    failed = run_missing([each for trial in trials for each in trial.fits], engine, "trials")
    levels, found = scored(trials, levels, baseline, failed)
    write_json_atomic(out / "tuning.json", {"levels": levels, "methods": found})
    return settings_in(found), failed


def scored(
    trials: Sequence[Trial], levels: Sequence[float], baseline: str | None, failed: Mapping[str, str]
) -> tuple[Sequence[float], dict[str, Any]]:
    """Return the levels of adherence, and what `choose` makes of the trials there."""
    if baseline is not None:
        fits = [each for trial in trials if trial.method == baseline for each in trial.fits]
        levels = relative_levels(levels, [_log(each) for each in fits if each.name not in failed])
    return levels, choose(trials, levels, failed)


def settings_in(found: Mapping[str, Any]) -> dict[str, Settings | None]:
    """Return the settings that were chosen, by method."""
    return {name: each["chosen"] for name, each in found.items()}


def choose(trials: Sequence[Trial], levels: Sequence[float], failed: Mapping[str, str]) -> dict[str, Any]:
    """Return each method's trials with their scores, and the settings chosen (None where every trial failed)."""
    found: dict[str, Any] = {}
    for trial in trials:
        if not trial.settings:
            continue
        lost = [each.name for each in trial.fits if each.name in failed]
        scores = {} if lost else {each.seed: spoilt(_log(each), levels) for each in trial.fits}
        score = math.fsum(scores.values()) / len(scores) if scores else None
        record = {"settings": trial.settings, "scores": scores, "score": score}
        record |= {"failed": failed[lost[0]]} if lost else {}
        found.setdefault(trial.method, {"trials": []})["trials"].append(record)
    for each in found.values():
        scored = [trial for trial in each["trials"] if trial["score"] is not None]
        best = min(scored, key=lambda trial: trial["score"], default={"settings": None})
        each["chosen"] = best["settings"]
    return found


def _log(fit: Fit) -> Rows:
    return RunFolder(fit.folder).read_metrics()
