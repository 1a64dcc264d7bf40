"""What a set of runs says, in figures and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graspl.errors import GrasplError
from graspl.evaluation.intervals import Difference, Interval, by_cluster, paired
from graspl.reporting.evaluation_file import check_evaluation
from graspl.reporting.tradeoff import Point, curve, spillover_at
from graspl.runs import RunFolder

METRICS = ("adherence", "spillover", "coherence", "kl", "rho_mean", "rho_max")
"""Figures of every run, in the order of the table."""
LEVELS = (0.90, 0.95)
"""Adherence at which runs are compared."""


@dataclass(frozen=True)
class Run:
    """One evaluated run."""

    name: str
    """In tables; the folder's name."""
    folder: RunFolder
    """Its files."""
    evaluation: dict[str, Any]
    """Content of `evaluation.json`."""
    points: list[Point]
    """Its trade-off curve; empty for a base model or a fit without validation."""
    generations: list[dict[str, Any]]
    """Example answers."""
    items: list[dict[str, Any]]
    """One value a question; [] where none were kept."""

    def shares(self, suite: str) -> dict[str, float]:
        """Return the harmful answers' share of the choices by question; {} where no choice of the suite is harmful."""
        if "harmful" not in self.evaluation.get("suites", {}).get(suite, {}):
            return {}
        return {str(row["item"]): float(row["value"]) for row in self.items if row["suite"] == suite}

    def share(self, suite: str) -> Interval | None:
        """Return the mean of `shares`, with its interval over questions that belong together; None without any."""
        values = self.shares(suite)
        groups = {
            str(row["item"]): row["group"] or row["item"] for row in self.items if row["suite"] == suite
        }
        if not values:
            return None
        return by_cluster(list(values.values()), [groups[item] for item in values])

    @property
    def metrics(self) -> dict[str, float | None]:
        """The figures of `METRICS`."""
        return {name: self.evaluation["metrics"].get(name) for name in METRICS}

    @property
    def is_base(self) -> bool:
        """Whether no adapter was evaluated."""
        return self.evaluation.get("adapter") is None and self.evaluation.get("checkpoint") is None

    @property
    def is_naive(self) -> bool:
        """Whether it is the plain fine-tune that the others are compared with."""
        return self.evaluation.get("model") == "LoRALitModule" and not self.is_base


class End(NamedTuple):
    """Where a run ended in one suite."""

    run: str
    """Its name."""
    suite: str
    """Of choices."""
    share: Interval
    """Harmful answers' share of the choices, 0..1, over questions."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: list[Run]
    """In the order given."""
    matched: dict[str, dict[str, float | None]]
    """Spill-over by adherence level and run, None where a run never reached the level."""
    verdict: list[str]
    """What the figures say, one sentence each."""
    headline: list[str]
    """The same in at most three sentences."""

    @property
    def ends(self) -> list[End]:
        """Where the runs ended, in each suite of choices of which some are harmful."""
        found = []
        for run in self.runs:
            for suite in run.evaluation.get("suites", {}):
                share = run.share(suite)
                if share is not None and share.n > 1:
                    found.append(End(run.name, suite, share))
        return found

    def summary(self) -> dict[str, Any]:
        """Return what `summary.json` holds."""
        runs = {
            run.name: {
                **run.metrics,
                "run": str(run.folder.path),
                "adapter": run.evaluation.get("adapter"),
                "directions": run.evaluation.get("directions"),
            }
            for run in self.runs
        }
        return {**runs, "matched": self.matched, "verdict": self.verdict, "headline": self.headline}


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read an evaluated run.

    Raises:
        GrasplError: it was not evaluated, or a file is broken.
    """
    run = RunFolder(folder)
    mend = f"run: graspl validate --config {run.config}"
    evaluation = check_evaluation(run.read_evaluation(), run.evaluation, mend)
    return Run(
        name or folder.name,
        run,
        evaluation,
        curve(run.read_metrics()),
        run.read_generations(),
        run.read_items(),
    )


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs side by side, at matched adherence.

    Raises:
        GrasplError: two have the same name.
    """
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise GrasplError(f"names: {twice[0]} stands for two runs; give --names, one for each run")
    fitted = [run for run in runs if run.points]
    matched = {
        f"{level:.2f}": {run.name: spillover_at(run.points, level) for run in fitted} for level in LEVELS
    }
    return Comparison(list(runs), matched, _verdict(runs, matched), _headline(runs, matched))


def _headline(runs: Sequence[Run], matched: dict[str, dict[str, float | None]]) -> list[str]:
    """Return at most three sentences: at matched adherence, where the fits ended, and what that is worth."""
    naive = next((run for run in runs if run.is_naive), None)
    others = [run for run in runs if run is not naive and not run.is_base]
    if naive is None or not others:
        return ["Give a naive fit and another one to compare them."]
    lines = [_at_matched(runs, naive, others, matched)]
    if naive.metrics["spillover"] is None:
        lines.append(_divergence(naive, others[-1]))
    difference = _at_the_end(others[-1], naive)
    if difference is not None:
        word = "less" if difference.value < 0 else "more"
        lines.append(
            f"Where they ended, harmful answers have {abs(difference.value):.3f} {word} of the choices on other topics with "
            f"{others[-1].name} than with {naive.name} (95 % interval over {difference.n} questions "
            f"{difference.low:+.3f} to {difference.high:+.3f}), at different adherence."
        )
    return [*lines, "One seed a run: intervals over seeds take a study, graspl compare."]


def _divergence(naive: Run, other: Run) -> str:
    """Return what is known of runs without a suite in which answers are harmful: how far they moved, and where to."""
    figures = {
        name: (run.metrics["kl"], run.metrics["adherence"])
        for name, run in ((naive.name, naive), (other.name, other))
    }
    parts = [
        f"{name} {kl:.3f} at adherence {adherence:.3f}"
        for name, (kl, adherence) in figures.items()
        if kl is not None and adherence is not None
    ]
    known = (
        f" Divergence from the base model off the task, in nats a token: {'; '.join(parts)}." if parts else ""
    )
    return f"Spill-over was not measured: no suite off the task has harmful answers to choose from (docs/tasks.md).{known}"


def _at_matched(
    runs: Sequence[Run], naive: Run, others: Sequence[Run], matched: dict[str, dict[str, float | None]]
) -> str:
    base = next((run.metrics["spillover"] for run in runs if run.is_base), None)
    for level, found in reversed(matched.items()):
        known = {run.name: value for run in others if (value := found.get(run.name)) is not None}
        theirs = found.get(naive.name)
        if known and theirs is not None:
            best = min(known, key=lambda name: known[name])
            text = f"At adherence {level} spill-over is {known[best]:.3f} with {best} and {theirs:.3f} with {naive.name}"
            if base is None or theirs <= base:
                return f"{text}."
            share = (theirs - known[best]) / (theirs - base)
            return f"{text}: {share:.0%} of what the naive fit adds to the base model's {base:.3f} is gone."
    return f"No fit reached adherence {next(iter(matched))} together with {naive.name}: nothing is compared at equal skill."


def _at_the_end(run: Run, naive: Run) -> Difference | None:
    ours, theirs = run.shares("unrelated"), naive.shares("unrelated")
    return paired(ours, theirs) if len(set(ours) & set(theirs)) > 1 else None


def _verdict(runs: Sequence[Run], matched: dict[str, dict[str, float | None]]) -> list[str]:
    naive = next((run for run in runs if run.is_naive), None)
    if naive is None:
        return ["No naive fit is among the runs, so nothing is compared at matched adherence."]
    lines = []
    for level, spillover in matched.items():
        for run in runs:
            if run is not naive and run.name in spillover:
                lines.append(
                    _sentence(level, run.name, spillover[run.name], naive.name, spillover.get(naive.name))
                )
    lines.append("One seed a run: there are no intervals, and a difference may be chance.")
    return lines


def _sentence(level: str, name: str, ours: float | None, naive_name: str, naive: float | None) -> str:
    missing = [who for who, value in ((name, ours), (naive_name, naive)) if value is None]
    if ours is None or naive is None:
        return f"At adherence {level}: not compared, {' and '.join(missing)} did not reach it."
    word = "lower" if ours < naive else "higher"
    return (
        f"At adherence {level}: spill-over of {name} {ours:.3f}, of {naive_name} {naive:.3f}; "
        f"{abs(ours - naive):.3f} {word}."
    )
