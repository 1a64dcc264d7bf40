"""What a fit or a validation found, in at most eight rows for the terminal."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from rich.table import Column, Table

from graspl.analysis.scores import RUN_FIGURES, SPILLOVER_SCORES, TASK_SCORES
from graspl.reporting.tables import figure
from graspl.runs import RunFolder

MOST_ROWS = 8
ABOUT = {
    "coherence": "probability of sensible answers, suite unrelated",
    "kl": "nats a token from the base model, suite unrelated",
    "rho_mean": "reliance on the directions, mean over sites",
    "rho_max": "reliance on the directions, largest of sites",
}
NOT_MEASURED = {
    "adherence": "not measured: the data have no suite task",
    "spillover": "not measured: give data.unrelated",
}


class Ended(NamedTuple):
    """A fit that ended."""

    steps: int
    seconds: float
    loss: float | None  # Of the last step, in nats an answer token
    peak_bytes: int = 0  # Of GPU memory; 0 without one


def results_parts(trainer: Any, seconds: float) -> list[Any]:
    """Return a table and lines that tell how a fit or a validation ended; none in all processes but the first.

    Args:
        trainer: Lightning's, after the run.
        seconds: that the command took.
    """
    if not trainer.is_global_zero:
        return []
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    run, ended = RunFolder(trainer.default_root_dir), None
    if trainer.state.fn == "fit":
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        ended = Ended(trainer.global_step, seconds, metrics.get("train/loss"), peak)
    table = results_table(metrics, ended)
    lines = []
    if ended is not None and run.config.exists() and not trainer.fast_dev_run:
        # A fit of fewer steps than trainer.log_every_n_steps logs none
        lines = [f"figures: {run.metrics}"] if run.metrics.exists() else []
        lines.append(f"next: graspl validate --config {run.config}")
    return [*([table] if table else []), *lines]


def results_table(metrics: Mapping[str, float], ended: Ended | None = None) -> Table | None:
    """Return figure, value and meaning of what matters most in a module's metrics; None where there is nothing to show.

    Args:
        metrics: by name, as logged: `val/adherence`, `val/task/token_accuracy`, ...
        ended: of a fit.
    """
    rows = [*_of_fit(ended), *_of_validation(metrics)]
    table = Table(Column("figure", no_wrap=True), Column("value", no_wrap=True), "what it is", box=None)
    for row in rows[:MOST_ROWS]:
        table.add_row(*row)
    return table if rows else None


def _of_fit(ended: Ended | None) -> Iterator[tuple[str, str, str]]:
    if ended is None:
        return
    memory = f"; {ended.peak_bytes / 1e9:.2f} GB of GPU memory at most" if ended.peak_bytes else ""
    yield "steps", f"{ended.steps:,}", f"in {timedelta(seconds=round(ended.seconds))}{memory}"
    if ended.loss is not None:
        yield "train loss", figure(ended.loss), "of the last step, nats an answer token"


def _of_validation(metrics: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    ours = {name: metrics[f"val/{name}"] for name in RUN_FIGURES if f"val/{name}" in metrics}
    if not ours:  # A module of the user's own
        yield from (
            (name, figure(value), "") for name, value in sorted(metrics.items()) if name.startswith("val")
        )
        return
    for name in RUN_FIGURES:
        if name in ours:
            yield name, figure(ours[name]), ABOUT.get(name) or _measured_by(name, metrics)
        elif name in NOT_MEASURED:
            yield name, "-", NOT_MEASURED[name]


def _measured_by(name: str, metrics: Mapping[str, float]) -> str:
    """Return which score of which suite stands for adherence or spill-over."""
    suite, scores = ("task", TASK_SCORES) if name == "adherence" else ("unrelated", SPILLOVER_SCORES)
    return f"{next(each for each in scores if f'val/{suite}/{each}' in metrics)} of suite {suite}"
