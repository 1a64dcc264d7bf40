"""What a set of runs says, in figures and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graspl.errors import GrasplError
from graspl.intervals import Interval, by_cluster
from graspl.reporting.evaluation_file import check_evaluation
from graspl.reporting.tradeoff import Point, Rows, base_adherence, curve, relative_levels, spillover_at
from graspl.runs import RunFolder

METRICS = ("adherence", "spillover", "coherence", "kl", "rho_mean", "rho_max")
"""Figures of every run, in the order of the table."""
LEVELS = (0.90, 0.95)
"""Adherence at which runs are compared."""
SHARES = (0.5, 0.9)
"""Of what the naive fit gains over the base model: where runs are compared if it reaches none of `LEVELS`."""


FEWEST_GROUPS = 5
"""Of questions that belong together, for an interval over them; fewer are kinds of question (Yes and No), not clusters."""


@dataclass(frozen=True)
class Run:
    """One evaluated run."""

    name: str
    """In tables; the folder's name."""
    folder: RunFolder
    """Its files."""
    evaluation: dict[str, Any]
    """Content of `evaluation.json`."""
    rows: Rows
    """Its log; empty for a base model."""
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
        if len(set(groups.values())) < FEWEST_GROUPS:
            groups = {item: item for item in groups}
        return by_cluster(list(values.values()), [groups[item] for item in values])

    def points(self, figure: str) -> list[Point]:
        """Return its curve of a figure against adherence; empty for a base model or a fit without validation."""
        return curve(self.rows, figure)

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
    figure: str
    """What is compared at equal adherence: `spillover`, or `kl` where no suite off the task has harmful answers."""
    matched: dict[str, dict[str, float | None]]
    """That figure by adherence level and run, None where a run never reached the level."""
    shares: dict[str, float]
    """Which share of what the naive fit gains over the base model a level is; empty where levels are `LEVELS`."""

    @property
    def naive(self) -> Run | None:
        """The plain fine-tune that the others are compared with, the first if there are several."""
        return next((run for run in self.runs if run.is_naive), None)

    @property
    def others(self) -> list[Run]:
        """The fits that are compared with the naive one."""
        return [run for run in self.runs if run is not self.naive and not run.is_base]

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
        return {
            **runs,
            "matched": self.matched,
            "matched_figure": self.figure,
            "matched_shares": self.shares,
        }


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
        run.read_metrics(),
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
    figure = "kl" if all(run.metrics["spillover"] is None for run in runs) else "spillover"
    shares = _shares(runs)
    levels = (
        {f"{level:.2f}": level for level in LEVELS} if not shares else {name: float(name) for name in shares}
    )
    matched = {
        name: {run.name: spillover_at(points, level) for run in runs if (points := run.points(figure))}
        for name, level in levels.items()
    }
    return Comparison(list(runs), figure, matched, shares)


def _shares(runs: Sequence[Run]) -> dict[str, float]:
    """Return levels as shares of the naive fit's gain, by adherence; empty where it reaches a fixed one, or gains nothing."""
    naive = next((run for run in runs if run.is_naive), None)
    reached = [] if naive is None else [row["val/adherence"] for row in naive.rows if "val/adherence" in row]
    start = None if naive is None else base_adherence(naive.rows)
    if naive is None or start is None or not start < max(reached, default=0.0) < LEVELS[0]:
        return {}
    return {
        f"{level:.4f}": share
        for level, share in zip(relative_levels(SHARES, [naive.rows]), SHARES, strict=True)
    }
