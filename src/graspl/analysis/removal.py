"""The figure that a report begins with: how much of the naive fit's excess spill-over is gone, or why nobody can tell."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graspl.analysis.comparison import Comparison
from graspl.analysis.intervals import Interval, removed, summarise
from graspl.analysis.runs import Run
from graspl.analysis.tradeoff import base_figures, share_removed
from graspl.analysis.verdicts import COHERENT, at


class Removal(NamedTuple):
    """Share of the excess spill-over that a method removes."""

    method: str = ""  # Whose share it is; "" where it cannot be told
    baseline: str = ""  # The naive method
    share: float | None = None  # 1 leaves none of it; None where it cannot be told
    low: float | None = None  # Lower end of the 95 % interval; None where there is none
    high: float | None = None  # Upper end
    over: str = ""  # What the interval is over, e.g. `5 seeds`; why there is none
    where: str = ""  # Where the methods were compared, in words
    beside: str = ""  # Another reading of the same runs, as a sentence
    instead: str = "cannot be told"  # What is said where there is no share
    reason: str = ""  # Why there is none, as a sentence


NOTHING = Removal(
    instead="there is none to remove",
    reason="Off the topic the naive fit gives no more harmful answers than the base model, as far as these questions tell.",
)


class _At(NamedTuple):
    """What a method removes at one level."""

    level: str
    method: str
    shares: list[float]  # By seed


def percent(value: float) -> str:
    """Return a share as text, e.g. `66 %`."""
    return f"{100 * value:.0f} %"


def removal(comparison: Comparison) -> Removal:
    """Return how much of the naive fit's excess spill-over the best method removes.

    Methods are read at the highest level of adherence that one of them reaches together with the naive fit; over seeds where
    two of each or more reached it. One seed has no interval there. If it ended past that level, with and without the method,
    then the share is read where the fits ended, with its interval over questions.
    """
    reason = _why_not(comparison)
    if reason is not None:
        return Removal(reason=reason)
    best = _best(comparison)
    run = comparison.others[-1] if best is None else next(iter(comparison.methods[best.method].values()))
    ended = _ended(comparison, run)
    if ended is None and _was_asked(comparison, run):
        return NOTHING
    if best is None:
        return _at_the_ends_alone(comparison, run, ended)
    where, others = f"at {at(comparison, best.level)}", _methods(comparison)
    if len(others) > 1:
        where = f"the best of {len(others)} methods, {where}"
    naive = comparison.baseline or ""
    if len(best.shares) > 1:
        found = summarise(best.shares)
        return Removal(best.method, naive, found.mean, found.low, found.high, f"{found.n} seeds", where)
    alone = Removal(best.method, naive, best.shares[0], over="one seed", where=where)
    if ended is None:
        return alone
    ends = _adherence(comparison, run)
    if min(ends.values()) < float(best.level):
        return alone._replace(beside=f"Where they ended ({_words(ends)}), {_interval(ended)}.")
    past = f"where both ended, past {at(comparison, best.level)} ({_words(ends)})"
    beside = f"Read {where} exactly, it is {percent(best.shares[0])}."
    return _over_questions(best.method, naive, ended)._replace(where=past, beside=beside)


def study_removal(comparison: Mapping[str, Any]) -> Removal:
    """Return how much of the baseline's excess spill-over a study's reference removes; the best method without a reference.

    Args:
        comparison: of `graspl.analysis.study.comparison_of`.
    """
    over, baseline = "tasks" if "tasks" in comparison else "seeds", comparison["baseline"]
    for level, methods in reversed(comparison["levels"].items()):
        shares = {
            name: each["removed"]
            for name, each in methods.items()
            if name != baseline and each["removed"]["mean"] is not None
        }
        named = comparison["reference"]
        method = named or max(shares, key=lambda name: shares[name]["mean"], default=None)
        if method is None or method not in shares:
            continue
        found, where = shares[method], f"at adherence {level}"
        if named is None and len(shares) > 1:
            where = f"the best of {len(shares)} methods, {where}"
        count = f"{found['n']} {over}" if found["low"] is not None else f"one {over.removesuffix('s')}"
        return Removal(method, baseline, found["mean"], found["low"], found["high"], count, where)
    who = comparison["reference"] or "another method"
    return Removal(
        reason=f"{baseline} and {who} reached no level together, or {baseline} adds no spill-over to measure."
    )


def removal_sentence(found: Removal) -> str:
    """Return what was removed, or why it cannot be told, as one line of text."""
    if found.share is None:
        return f"Spill-over removed: {found.instead}. {found.reason}"
    spread = f"{found.over}, no interval"
    if found.low is not None and found.high is not None:
        spread = f"95 % interval over {found.over} {percent(found.low)} to {percent(found.high)}"
    share = f"{percent(found.share)} of what {found.baseline} adds is gone with {found.method}"
    return f"Spill-over removed: {share} ({spread}), {found.where}. {found.beside}".strip()


def _why_not(comparison: Comparison) -> str | None:
    """Return why no share can be told of any method; None where it may be."""
    naive = comparison.naive
    if naive is None or not comparison.others:
        return "The runs need a naive fit, and another fit to compare with it."
    if comparison.figure == "kl":
        return "No suite named `unrelated` has harmful answers to choose from (docs/tasks.md)."
    coherence = naive.metrics["coherence"]
    if coherence is not None and coherence < COHERENT:
        return (
            "Off the topic the model gives one of the answers to choose from with a probability of only "
            f"{coherence:.1g}; measure with questions that it answers."
        )
    return None


def _best(comparison: Comparison) -> _At | None:
    """Return the method that removes most, at the highest level that one reaches together with the naive fit."""
    for level, found in reversed(comparison.matched.items()):
        read = []
        for method, runs in _methods(comparison).items():
            shares = [_share(comparison, run, found) for run in runs]
            known = [each for each in shares if each is not None]
            read += [_At(level, method, known)] if known else []
        if read:
            return max(read, key=lambda each: sum(each.shares) / len(each.shares))
    return None


def _share(comparison: Comparison, run: Run, found: Mapping[str, float | None]) -> float | None:
    naive = comparison.naive_for(run)
    return share_removed(found.get(run.name), found.get(naive.name) if naive else None, _base(comparison))


def _base(comparison: Comparison) -> float | None:
    """Return the base model's spill-over, as it was evaluated, or as the naive fit logged it."""
    own = [run.metrics["spillover"] for run in comparison.runs if run.is_base]
    logged = [base_figures(run.rows)["spillover"] for run in comparison.runs if run.is_naive]
    return next((value for value in [*own, *logged] if value is not None), None)


def _methods(comparison: Comparison) -> dict[str, list[Run]]:
    ours = {id(run) for run in comparison.others}
    found = {
        name: [run for run in runs.values() if id(run) in ours] for name, runs in comparison.methods.items()
    }
    return {name: runs for name, runs in found.items() if runs}


def _ended(comparison: Comparison, run: Run) -> Interval | None:
    """Return the share where a run and the naive fit ended, over questions."""
    naive, base = comparison.naive_for(run), next((each for each in comparison.runs if each.is_base), None)
    if naive is None or base is None:
        return None
    shares = [each.shares("unrelated") for each in (run, naive, base)]
    return removed(*shares) if all(shares) else None


def _at_the_ends_alone(comparison: Comparison, run: Run, ended: Interval | None) -> Removal:
    """Return the share where fits ended, with the reason why it is not at matched adherence."""
    levels = " or ".join(at(comparison, level) for level in comparison.matched)
    if ended is None:
        told = f"No fit reached {levels} together with the naive fit, or the naive fit adds nothing to the base model."
        return Removal(reason=told)
    ends = _words(_adherence(comparison, run))
    where = f"where they ended ({ends}): no fit reached {levels} together with the naive fit"
    return _over_questions(run.name, comparison.baseline or "", ended)._replace(where=where)


def _was_asked(comparison: Comparison, run: Run) -> bool:
    """Whether a run, the naive fit and the base model all answered questions off the task."""
    naive, base = comparison.naive_for(run), next((each for each in comparison.runs if each.is_base), None)
    return all(each is not None and each.shares("unrelated") for each in (run, naive, base))


def _over_questions(method: str, naive: str, found: Interval) -> Removal:
    return Removal(method, naive, found.value, found.low, found.high, f"{found.n} questions")


def _adherence(comparison: Comparison, run: Run) -> dict[str, float]:
    """Return at which adherence a run and the naive fit ended, by name; 0 where it is not known."""
    naive = comparison.naive_for(run)
    ends: Sequence[Run] = [run, *([naive] if naive else [])]
    return {each.name: each.metrics["adherence"] or 0.0 for each in ends}


def _words(ends: Mapping[str, float]) -> str:
    return "adherence " + " and ".join(f"{value:.2f} with {name}" for name, value in ends.items())


def _interval(found: Interval) -> str:
    interval = f"95 % interval over {found.n} questions {percent(found.low)} to {percent(found.high)}"
    return f"it is {percent(found.value)} ({interval})"
