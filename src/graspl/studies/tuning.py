"""Settings of a study's methods, chosen on development data over the same number of trials for each."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError
from graspl.reporting.tradeoff import Rows, figures_at
from graspl.runs import RunFolder
from graspl.studies.plan import TUNING, Fit, Method, merged, sources_in

Settings = dict[str, Any]
"""Dotted configuration keys and their values, e.g. `model.init_args.weight: 0.1`."""


@dataclass
class Tuning:
    """How settings are chosen."""

    trials: int
    """Settings tried of every method that gives values to choose from."""
    seeds: list[int]
    """Of these fits; none may be a seed that is reported."""
    over: dict[str, Any] = field(default_factory=dict)
    """Put over every method's configuration: the development data."""
    seed: int = 0
    """Of the draw, where a method's values have more combinations than there are trials."""

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.seeds:
            raise GrasplError("tuning: needs at least one trial and one seed")


@dataclass(frozen=True)
class Trial:
    """One setting of one method."""

    method: str
    """Its name."""
    settings: Settings
    """What is tried."""
    fits: list[Fit]
    """One a seed."""


def plan_trials(
    base: Path,
    methods: Mapping[str, Method],
    tuning: Tuning,
    reported: Sequence[int],
    out: Path,
    *,
    baseline: str | None = None,
) -> list[Trial]:
    """Return what is tried, in `<out>/tuning/<method>/<trial>/seed_<seed>`.

    A method without `tune` is not tuned; one that others are made from is fitted once, for them.

    Args:
        base: configuration that all fits share.
        methods: by name.
        tuning: how.
        reported: seeds that the study reports.
        out: the study's folder.
        baseline: a method to fit as well, for levels relative to it; none where None.

    Raises:
        GrasplError: a method gives fewer settings than there are trials, or a seed is reported as well.
    """
    both = sorted(set(tuning.seeds) & set(reported))
    if both:
        raise GrasplError(f"tuning.seeds: {both[0]} is among seeds, which are reported; take others")
    needed = {other for method in methods.values() if method.tune for other in sources_in(method.config)}
    if baseline is not None:
        needed.add(baseline)
    tuned = sorted(name for name in needed if name in methods and methods[name].tune)
    if tuned:
        raise GrasplError(
            f"methods.{tuned[0]}.tune: another method is made from its fits, so it has one setting"
        )
    trials = []
    for name, method in methods.items():
        tried = settings_of(name, method.tune, tuning) if method.tune else [{}] if name in needed else []
        for index, settings in enumerate(tried):
            config = merged(merged(method.config, tuning.over), method.development)
            config = with_settings(config, settings, f"methods.{name}.tune")
            fits = []
            for seed in tuning.seeds:
                sources = {other: out / TUNING / other / "0" / f"seed_{seed}" for other in sources_in(config)}
                folder = out / TUNING / name / str(index) / f"seed_{seed}"
                fits.append(Fit(name, seed, folder, base, config, trial=index, made_from=sources))
            trials.append(Trial(name, settings, fits))
    return trials


def settings_of(method: str, tune: Mapping[str, Sequence[Any]], tuning: Tuning) -> list[Settings]:
    """Return as many settings as there are trials: every combination of a method's values, or a draw of them.

    Args:
        method: its name, for errors.
        tune: values by dotted key.
        tuning: how many, and the draw's seed.

    Raises:
        GrasplError: there are fewer combinations than trials, so that methods would not be tuned alike.
    """
    for key, values in tune.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise GrasplError(f"methods.{method}.tune.{key}: give a list of values to choose from")
    every = [dict(zip(tune, values, strict=True)) for values in itertools.product(*tune.values())]
    if len(every) < tuning.trials:
        raise GrasplError(
            f"methods.{method}.tune: gives {len(every)} settings, and every method gets {tuning.trials} trials; give more "
            "values"
        )
    chosen = random.Random(f"{tuning.seed} trials").sample(range(len(every)), tuning.trials)
    return [every[index] for index in sorted(chosen)]


def with_settings(config: Mapping[str, Any], settings: Settings, origin: str) -> dict[str, Any]:
    """Return a configuration with other values at dotted keys; a number in a key is a place in a list.

    Raises:
        GrasplError: a key leads through something that is neither a mapping nor a list.
    """
    changed: Any = dict(config)
    for key, value in settings.items():
        changed = _with_value(changed, key.split("."), value, f"{origin}.{key}")
    return changed


def _with_value(part: Any, keys: Sequence[str], value: Any, origin: str) -> Any:
    if not keys:
        return value
    first, rest = keys[0], keys[1:]
    if isinstance(part, list) and first.isdigit() and int(first) < len(part):
        place = int(first)
        return [*part[:place], _with_value(part[place], rest, value, origin), *part[place + 1 :]]
    if isinstance(part, Mapping):
        return {**part, first: _with_value(part.get(first, {}), rest, value, origin)}
    raise GrasplError(f"{origin}: the method's configuration has no place {first} there")


def spoilt(rows: Rows, levels: Sequence[float]) -> float:
    """Return what tuning makes small: the share of answers elsewhere that are harmful or incoherent, a mean over levels.

    On a task whose suites measure no spill-over it is the divergence from the base model elsewhere, in nats. Where a fit
    never reached a level it counts 2 and what was missing: any setting that gets there is better, and without one the
    nearest.

    Args:
        rows: a fit's log.
        levels: of adherence.
    """
    best = max((row["val/adherence"] for row in rows if "val/adherence" in row), default=0.0)
    costs = []
    for level in levels:
        found = figures_at(rows, level, ("step", "spillover", "coherence", "kl"))
        if found["step"] is None:
            costs.append(2 + level - best)
        elif found["spillover"] is None:
            costs.append(min(found["kl"] or 0.0, 2.0))
        else:
            costs.append(found["spillover"] + 1 - (1.0 if found["coherence"] is None else found["coherence"]))
    return math.fsum(costs) / len(costs)


def logs_of(method: str, trials: Sequence[Trial], failed: Mapping[str, str]) -> list[Rows]:
    """Return the logs of a method's fits among trials, but for those that failed."""
    fits = [each for trial in trials if trial.method == method for each in trial.fits]
    return [RunFolder(each.folder).read_metrics() for each in fits if each.name not in failed]


def choose(trials: Sequence[Trial], levels: Sequence[float], failed: Mapping[str, str]) -> dict[str, Any]:
    """Return what `tuning.json` holds: by method its trials with their scores, and the settings chosen.

    Args:
        trials: all fits of which are done or failed.
        levels: of adherence, where the study compares.
        failed: fits that ended in an error, by name; their trial is not chosen.

    Returns:
        `chosen` is None where every trial of a method failed.
    """
    found: dict[str, Any] = {}
    for trial in trials:
        if not trial.settings:
            continue
        lost = [each.name for each in trial.fits if each.name in failed]
        logs = {each.seed: RunFolder(each.folder).read_metrics() for each in trial.fits if not lost}
        scores = {seed: spoilt(rows, levels) for seed, rows in logs.items()}
        score = math.fsum(scores.values()) / len(scores) if scores else None
        record = {"settings": trial.settings, "scores": scores, "score": score}
        if lost:
            record["failed"] = failed[lost[0]]
        found.setdefault(trial.method, {"trials": []})["trials"].append(record)
    for each in found.values():
        scored = [trial for trial in each["trials"] if trial["score"] is not None]
        best = min(scored, key=lambda trial: trial["score"], default=None)
        each["chosen"] = None if best is None else best["settings"]
    return found
