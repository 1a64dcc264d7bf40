"""Runs that differ in nothing but their seed, put together as one method over seeds."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from graspl.analysis.runs import Run
from graspl.analysis.settings import settings_of

NUMBERED = re.compile(r"(?P<method>.*?)[ _./-]*(?:seeds?[ _.-]*)?(?P<seed>\d+)")
FREE = ("seed", "seed_everything")  # Options in which seeds of one method may differ
RunsBySeed = Mapping[str, Mapping[str, Run]]  # By method and seed


def by_method(runs: Sequence[Run]) -> dict[str, dict[str, Run]]:
    """Return runs by method and seed.

    Runs are seeds of one method where their names differ only in a number at the end (`naive_0` and `naive_1`, or
    `naive/seed_0` and `naive/seed_1`) and their configurations only in seeds and in the numbers of folders. Any other run
    is a method by itself, with the seed "".
    """
    named: dict[tuple[Any, ...], dict[str, Run]] = {}
    for run in runs:
        found = NUMBERED.fullmatch(run.name)
        if found and found["method"]:
            named.setdefault((found["method"], *_made_of(run)), {})[found["seed"]] = run
    together = {
        run.name: (key[0], seed) for key, each in named.items() if len(each) > 1 for seed, run in each.items()
    }
    # Two settings under one name stay apart, each run by itself
    several = [key[0] for key, each in named.items() if len(each) > 1]
    clashing = {name for name in several if several.count(name) > 1} | {run.name for run in runs}
    found_methods: dict[str, dict[str, Run]] = {}
    for run in runs:
        method, seed = together.get(run.name, (run.name, ""))
        if seed and method in clashing:
            method, seed = run.name, ""
        found_methods.setdefault(method, {})[seed] = run
    return found_methods


def _made_of(run: Run) -> tuple[str, ...]:
    """Return what runs of one method have in common, as text."""
    evaluation = run.evaluation
    parts = [evaluation.get(name) for name in ("model", "parts", "base_model")]
    return (*map(str, parts), str(run.is_base), str(_without_seeds(settings_of(run.folder))))


def _without_seeds(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_seeds(each) for key, each in value.items() if key not in FREE}
    if isinstance(value, list):
        return [_without_seeds(each) for each in value]
    return re.sub(r"\d+", "#", value) if isinstance(value, str) else value
