"""What a study's comparison says, in sentences."""

from collections.abc import Mapping
from typing import Any

_PLACES = {
    "more": "Remove more than {}",
    "less": "Remove less than {}",
    "undecided": "Not told apart from {}",
    "never": "Never reached it",
}


def study_verdict(comparison: Mapping[str, Any]) -> list[str]:
    """Return a few sentences for each level: what the reference removes, and which methods remove more or less.

    A method counts as better or worse where the 95 % interval of the paired difference excludes 0. Over few seeds that is a
    high bar; with many methods, one in twenty passes it by chance.
    """
    lines = []
    reference, baseline = comparison["reference"], comparison["baseline"]
    for level, methods in comparison["levels"].items():
        ours = methods.get(reference)
        if ours is None or ours["removed"]["mean"] is None:
            lines.append(f"At adherence {level}: {_why_not(reference, baseline, methods)}")
            continue
        lines.append(
            f"At adherence {level}: {reference} removes {_percent(ours['removed'])} of {baseline}'s excess spill-over "
            f"({reached(ours)} reached it)."
        )
        places: dict[str, list[str]] = {place: [] for place in _PLACES}
        for name, each in methods.items():
            if name not in (reference, baseline):
                places[_place(each)].append(_named(name, each))
        for place, names in places.items():
            lines += [f"  {_PLACES[place].format(reference)}: {', '.join(names)}."] if names else []
    return lines


def reached(found: Mapping[str, Any]) -> str:
    """Return how many of a method's fits reached the level, e.g. `4 of 5`."""
    return f"{_count(found)} of {found['fits']}"


def _why_not(reference: str | None, baseline: str, methods: Mapping[str, Any]) -> str:
    if reference is None:
        return "no reference method is named, so none is placed."
    for name in (baseline, reference):
        if name not in methods or not _count(methods[name]):
            return f"{name} never reached it, so nothing is placed."
    return "no excess spill-over is measured, so nothing is placed; the table shows what is."


def _place(found: Mapping[str, Any]) -> str:
    if found["removed"]["mean"] is None:
        return "never"
    behind = found["behind"]
    if behind["low"] is None:
        return "undecided"
    return "more" if behind["high"] < 0 else "less" if behind["low"] > 0 else "undecided"


def _named(name: str, found: Mapping[str, Any]) -> str:
    if found["removed"]["mean"] is None:
        return name
    some = "" if _count(found) == found["fits"] else f", {reached(found)}"
    return f"{name} ({_percent(found['removed'])}{some})"


def _percent(summary: Mapping[str, Any]) -> str:
    mean = f"{100 * summary['mean']:.0f} %"
    if summary["low"] is None:
        return mean
    return f"{mean}, {100 * summary['low']:.0f} to {100 * summary['high']:.0f}"


def _count(found: Mapping[str, Any]) -> int:
    return found.get("reached", found.get("step", {}).get("n", 0))
