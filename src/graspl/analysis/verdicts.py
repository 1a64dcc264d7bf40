"""What a comparison of runs says, in sentences."""

import math
from collections.abc import Sequence

from graspl.analysis.comparison import Comparison
from graspl.analysis.intervals import Difference, paired
from graspl.analysis.runs import Run

# A figure's name in a sentence.
CALLED = {"spillover": "spill-over", "kl": "divergence from the base model off the task"}
UNIT = {"spillover": "", "kl": " nats a token"}
COHERENT = 0.1  # Below this probability of all answers to choose from, their shares say little
ONE_SEED = "One seed for each run: a difference may be chance. graspl compare gives intervals over seeds."


def key_points(comparison: Comparison) -> list[str]:
    """Return at most three sentences: at matched adherence and, of one seed, where the fits ended and what it is worth."""
    naive, others = comparison.naive, comparison.others
    if naive is None or not others:
        return ["Give a naive fit and another fit to compare them."]
    lines = [_at_matched(comparison, naive, others) + _caution(naive)]
    several = [name for name, runs in comparison.methods.items() if len(runs) > 1]
    if comparison.baseline in several and len(several) > 1:
        return lines
    ours = others[-1]
    naive = comparison.naive_for(ours) or naive
    difference = _at_the_end(ours, naive)
    if difference is not None:
        word = "less" if difference.value < 0 else "more"
        lines.append(
            f"Where they ended, harmful answers have {abs(difference.value):.3f} {word} of the choices on other topics with "
            f"{ours.name} than with {naive.name} (95 % interval over {difference.n} questions "
            f"{difference.low:+.3f} to {difference.high:+.3f}), at different adherence."
        )
    elif comparison.figure == "kl":
        lines.append(_divergence(naive, ours))
    return [*lines, ONE_SEED]


def verdict(comparison: Comparison) -> list[str]:
    """Return one sentence for each fit and level of adherence."""
    naive = comparison.naive
    if naive is None:
        return ["No naive fit is among the runs, so nothing is compared at matched adherence."]
    return [
        _sentence(comparison, level, run.name, (comparison.naive_for(run) or naive).name)
        for level, found in comparison.matched.items()
        for run in comparison.others
        if run.name in found
    ]


def at(comparison: Comparison, level: str) -> str:
    """Return a level of adherence as a sentence names it, e.g. `adherence 0.90`."""
    share = comparison.shares.get(level)
    return f"adherence {level}" + (f" ({share:.0%} of what the naive fit gains)" if share is not None else "")


def _at_matched(comparison: Comparison, naive: Run, others: list[Run]) -> str:
    base = next((run.metrics["spillover"] for run in comparison.runs if run.is_base), None)
    name, unit = CALLED[comparison.figure], UNIT[comparison.figure]
    for level, found in reversed(comparison.matched.items()):
        means = {
            name: _mean([found.get(run.name) for run in runs.values()])
            for name, runs in comparison.methods.items()
        }
        known = {
            name: mean
            for name, runs in comparison.methods.items()
            if (mean := means[name]) is not None and any(run in others for run in runs.values())
        }
        theirs = means.get(comparison.baseline or "")
        if known and theirs is not None:
            best = min(known, key=lambda name: known[name])
            both = f"{known[best]:.3f}{unit} with {best} and {theirs:.3f} with {comparison.baseline}"
            text = f"At {at(comparison, level)} {name} is {both}"
            if comparison.figure == "kl" or base is None or theirs <= base:
                return f"{text}."
            share = (theirs - known[best]) / (theirs - base)
            return f"{text}: {share:.0%} of what the naive fit adds to the base model's {base:.3f} is gone."
    levels = " or ".join(at(comparison, level) for level in comparison.matched)
    return f"No fit reached {levels} together with {naive.name}: nothing is compared at equal skill."


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _divergence(naive: Run, other: Run) -> str:
    """Say how far runs moved without a suite that has harmful answers, and at which adherence."""
    ends = {run.name: (run.metrics["kl"], run.metrics["adherence"]) for run in (naive, other)}
    known = {name: each for name, each in ends.items() if None not in each}
    parts = [f"{name} {kl:.3f} at adherence {adherence:.3f}" for name, (kl, adherence) in known.items()]
    told = f" Divergence where they ended, in nats a token: {'; '.join(parts)}." if parts else ""
    return f"Spill-over was not measured: no suite off the task has harmful answers to choose from (docs/tasks.md).{told}"


def _caution(naive: Run) -> str:
    """Warn of a model that gives hardly any of the answers to choose from; empty for another."""
    coherence = naive.metrics["coherence"]
    if naive.metrics["spillover"] is None or coherence is None or coherence >= COHERENT:
        return ""
    return (
        f" That says little: off the task {naive.name} gives one of the answers to choose from with a probability of only "
        f"{coherence:.3f}."
    )


def _at_the_end(run: Run, naive: Run) -> Difference | None:
    ours, theirs = run.shares("unrelated"), naive.shares("unrelated")
    return paired(ours, theirs) if len(set(ours) & set(theirs)) > 1 else None


def _sentence(comparison: Comparison, level: str, name: str, naive_name: str) -> str:
    found, where = comparison.matched[level], at(comparison, level)
    ours, naive = found[name], found.get(naive_name)
    if ours is None or naive is None:
        missing = [who for who in (name, naive_name) if found.get(who) is None]
        return f"At {where}: not compared, {' and '.join(missing)} did not reach it."
    word = "lower" if ours < naive else "higher"
    return (
        f"At {where}: {CALLED[comparison.figure]} of {name} {ours:.3f}, of {naive_name} {naive:.3f}; "
        f"{abs(ours - naive):.3f}{UNIT[comparison.figure]} {word}."
    )
