"""An interrupted fit keeps what it has learnt."""

import logging
import signal
import threading
from typing import Any

from lightning import Callback, LightningModule, Trainer

from graspl.runs import RunFolder

log = logging.getLogger(__name__)


class SaveOnInterrupt(Callback):
    """At the first Ctrl-C a fit ends its optimizer step, writes `checkpoints/last.ckpt` and stops; the second is at once.

    In the middle of a step, weights, optimizer and loader do not match. Several processes would see the signal at
    different steps, and writing takes all of them: they keep the last regular checkpoint.
    """

    def __init__(self) -> None:
        self._before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle the signal."""
        self._interrupted, self._steps = False, trainer.global_step
        # Only the main thread may, and a dry run has nothing to keep
        if threading.current_thread() is threading.main_thread() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._before = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self._interrupted = True
        log.warning("interrupted: ending this step; once more to stop at once")
        self._restore()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Write and stop after a whole step."""
        stepped, self._steps = trainer.global_step > self._steps, trainer.global_step
        if not self._interrupted or not stepped:
            return
        last = RunFolder(trainer.default_root_dir).checkpoints / "last.ckpt"
        if trainer.world_size == 1:
            trainer.save_checkpoint(last)
        advice = "there is no checkpoint yet, start again"
        if last.exists():
            advice = "go on with the same command and --ckpt_path last"
        log.warning("interrupted at step %d: %s", self._steps, advice)
        raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the signal's handler."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal's handler."""
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
