"""What a fit and a validation say while they run: a short line in a terminal, a line now and then in a file or a pipe."""

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch.distributed.tensor import DTensor

from graspl.analysis.scores import headline

log = logging.getLogger(__name__)

REFRESH = (
    0.5  # Seconds between two looks at the loss in a terminal; on an accelerator each look waits for the step
)
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # Seconds between two lines of a file, at first and at most
SHARE = 0.05  # A pause is this share of the time so far, so that long fits write few lines
LOSS = "train/loss"
COUNTS = ((1e9, "B"), (1e6, "M"), (1e3, "k"), (1, ""))
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))


class ConsoleProgress(ProgressBar):
    """Says how far a fit or a validation is: step, loss and time left.

    In a terminal it is one line below everything else that is printed. Elsewhere it writes a line at the first step, now
    and then, and at the last. After each validation of a fit its headline figures get a line in both.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._enabled = clock, True
        self._bar: Progress | None = None
        self._total: int | None = None
        self._first = self._done = 0
        self._told = self._pause = 0.0
        self._began: float | None = None  # When the first step began
        self._validated: float | None = None

    def enable(self) -> None:
        """Say something."""
        self._enabled = True

    def disable(self) -> None:
        """Say nothing, as in all processes but the first."""
        self._enabled = False
        self._stop()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a fit; what the method does before its first step belongs to no step."""
        steps = trainer.estimated_stepping_batches
        self._begin("fit", int(steps) if steps != float("inf") else None, trainer.global_step)
        if self._enabled and self._bar is None:
            log.info("fit: %s  getting ready", self._count(trainer.global_step))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Start the clock at the first step."""
        if self._began is None:
            self._began = self._told = self._clock()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Say what step it is."""
        if trainer.global_step > self._done:
            self._advance(trainer.global_step, lambda: _loss(trainer.callback_metrics))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the line."""
        self._stop()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a validation, or say that a fit validates."""
        if trainer.state.fn == "validate":
            batches = sum(trainer.num_val_batches)
            self._begin("validate", int(batches) if batches != float("inf") else None, 0)
            self._began = self._told = self._clock()
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description="validate")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Say what batch it is; of a long validation in a fit, that it goes on."""
        if trainer.state.fn == "validate":
            self._advance(self._done + 1, lambda: "")
        elif self._enabled and self._bar is None and self._began is not None:
            now = self._clock()
            if now - self._told >= self._pause:
                log.info("fit: %s  validating", self._count(trainer.global_step))
                self._told = now

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the line of a validation; of one in a fit, say the headline figures."""
        if trainer.state.fn == "validate":
            self._stop()
        elif not trainer.sanity_checking and self._enabled:
            self._tell_headline(trainer)

    def _tell_headline(self, trainer: Trainer) -> None:
        """Say a fit's headline figures; where validations follow one another soon, not those of each."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description="fit")
        now, last = self._clock(), trainer.global_step == self._total
        told = ", ".join(f"{name} {value:.3f}" for name, value in _headline(trainer.callback_metrics).items())
        if told and (last or self._validated is None or now - self._validated >= self._pause):
            log.info("%s: %s", self._count(trainer.global_step), told)
            self._validated = now

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the line, so that the error stands alone."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the line."""
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the line; `LightningModule.print` calls it."""
        print(*args, **kwargs)

    def _begin(self, what: str, total: int | None, done: int) -> None:
        self._stop()
        self._what, self._total, self._first, self._done = what, total, done, done
        self._began, self._pause, self._validated = None, FIRST_PAUSE, None
        if self._enabled and is_terminal():
            # A command's output that goes elsewhere must not come into the terminal
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[told]}"),
                console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty(),
                refresh_per_second=1 / REFRESH,
            )  # fmt: skip
            self._bar.add_task(what, total=total, completed=done, told="getting ready")
            self._bar.start()

    def _advance(self, done: int, figure: Callable[[], str]) -> None:
        """Say that so much is done, with a figure, if it is time to."""
        self._done, now = done, self._clock()
        if not self._enabled:
            return
        spent = 0.0 if self._began is None else now - self._began
        first, last = done == self._first + 1, done == self._total
        pause = self._pause if self._bar is None else REFRESH
        if not (first or last or now - self._told >= pause):
            return
        self._told, self._pause = now, min(max(FIRST_PAUSE, SHARE * spent), LONGEST_PAUSE)
        told = "  ".join(filter(None, (self._count(done), figure(), self._left(done, spent))))
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, told=told)
        else:
            log.info("%s: %s", self._what, told)

    def _count(self, done: int) -> str:
        unit = "batch" if self._what == "validate" else "step"
        return f"{unit} {done}" + (f"/{self._total}" if self._total is not None else "")

    def _left(self, done: int, spent: float) -> str:
        """Return the time left by the pace so far, seconds spent on it; "" where the end or the pace is unknown."""
        if self._total is None or not spent:
            return ""
        seconds = spent / (done - self._first) * (self._total - done)
        return f"{timedelta(seconds=round(seconds))} left"

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ShortSummary(ModelSummary):
    """Says in one line how many parameters are trained and frozen, and the memory of the weights in this process."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it."""
        if not trainer.is_global_zero:
            return
        trained, frozen, size = parameters(pl_module)
        log.info(
            "model: %s trained parameters, %s frozen; %s of weights on %s",
            rounded(trained, COUNTS), rounded(frozen, COUNTS), rounded(size, BYTES), pl_module.device,
        )  # fmt: skip


def with_console(options: Any) -> list[Callback]:
    """Return the callbacks that the trainer's options name, and graspl's own console where they name no other."""
    given = options.callbacks or []
    callbacks: list[Callback] = list(given) if isinstance(given, list) else [given]
    for enabled, kind, ours in (
        (options.enable_progress_bar, ProgressBar, ConsoleProgress),
        (options.enable_model_summary, ModelSummary, ShortSummary),
    ):
        if (
            enabled is not False
            and not options.barebones
            and not any(isinstance(each, kind) for each in callbacks)
        ):
            callbacks.append(ours())
    return callbacks


def parameters(module: LightningModule) -> tuple[int, int, int]:
    """Return how many numbers a module trains and keeps frozen, and the bytes of both in this process."""
    trained = frozen = size = 0
    for p in module.parameters():
        state = getattr(p, "quant_state", None)  # Of four-bit weights, two of which are packed into a byte
        count = p.numel() if state is None else state.shape.numel()
        local: Any = p.to_local() if isinstance(p, DTensor) else p
        size += local.numel() * local.element_size()
        trained, frozen = (trained + count, frozen) if p.requires_grad else (trained, frozen + count)
    return trained, frozen, size


def rounded(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Return a number as text with three digits and the first of some units that it reaches; the last one is for all."""
    size, name = next((unit for unit in units if value >= unit[0]), units[-1])
    return f"{value / size:.3g} {name}".strip()


def is_terminal() -> bool:
    """Return whether what is said is read in a terminal that can change a line."""
    console = Console(stderr=True)
    return sys.stderr.isatty() and not console.is_dumb_terminal


def _loss(metrics: Mapping[str, Any]) -> str:
    return f"loss {float(metrics[LOSS]):.4g}" if LOSS in metrics else ""


def _headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(metrics[f"val/{name}"]) for name in headline({}) if f"val/{name}" in metrics}
