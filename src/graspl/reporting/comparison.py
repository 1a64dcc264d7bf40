"""What a set of runs says, in figures and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError
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


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: list[Run]
    """In the order given."""
    matched: dict[str, dict[str, float | None]]
    """Spill-over by adherence level and run, None where a run never reached the level."""
    verdict: list[str]
    """What the figures say, one sentence each."""

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
        return {**runs, "matched": self.matched, "verdict": self.verdict}


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read an evaluated run.

    Raises:
        GrasplError: it was not evaluated, or a file is broken.
    """
    run = RunFolder(folder)
    evaluation = run.read_evaluation()
    if not isinstance(evaluation, dict) or not isinstance(evaluation.get("metrics"), dict):
        raise GrasplError(f"{run.evaluation}: holds no metrics; run: graspl validate --config {run.config}")
    return Run(name or folder.name, run, evaluation, curve(run.read_metrics()), run.read_generations())


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
    return Comparison(list(runs), matched, _verdict(runs, matched))


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
