"""What a comparison says in words."""

from collections.abc import Mapping
from typing import Any


def verdict(comparison: Mapping[str, Any]) -> list[str]:
    """Return a few sentences a level of adherence: what is removed, and which methods remove more or less than the reference.

    A method counts as better or worse where the 95 % interval of the paired difference leaves out 0; over few seeds that is a
    high bar, and with many methods one in twenty passes it by chance.

    Args:
        comparison: content of `comparison.json`.
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
            f"({_reached(ours)} reached it)."
        )
        sorted_out: dict[str, list[str]] = {"more": [], "less": [], "undecided": [], "never": []}
        for name, each in methods.items():
            if name not in (reference, baseline):
                sorted_out[_place(each)].append(_named(name, each))
        for kind, words in _WORDS.items():
            if sorted_out[kind]:
                lines.append(f"  {words.format(reference)}: {', '.join(sorted_out[kind])}.")
    return lines


def _why_not(reference: str | None, baseline: str, methods: Mapping[str, Any]) -> str:
    if reference is None:
        return "no reference method is named, so none is placed."
    for name in (baseline, reference):
        if name not in methods or not _count(methods[name]):
            return f"{name} never reached it, so nothing is placed."
    return "no excess spill-over is measured, so nothing is placed; see the columns for what is."


_WORDS = {
    "more": "Remove more than {}",
    "less": "Remove less than {}",
    "undecided": "Not told apart from {}",
    "never": "Never reached it",
}


def _place(found: Mapping[str, Any]) -> str:
    if found["removed"]["mean"] is None:
        return "never"
    behind = found["behind"]
    if behind["low"] is None:
        return "undecided"
    # behind is the reference's share less the method's
    return "more" if behind["high"] < 0 else "less" if behind["low"] > 0 else "undecided"


def _named(name: str, found: Mapping[str, Any]) -> str:
    if found["removed"]["mean"] is None:
        return name
    some = "" if _count(found) == found["fits"] else f", {_reached(found)}"
    return f"{name} ({_percent(found['removed'])}{some})"


def _percent(summary: Mapping[str, Any]) -> str:
    mean = f"{100 * summary['mean']:.0f} %"
    if summary["low"] is None:
        return mean
    return f"{mean}, {100 * summary['low']:.0f} to {100 * summary['high']:.0f}"


def _count(found: Mapping[str, Any]) -> int:
    return found["reached"] if "reached" in found else found["step"]["n"]


def _reached(found: Mapping[str, Any]) -> str:
    return f"{_count(found)} of {found['fits']}"
