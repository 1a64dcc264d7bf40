"""What a fit costs in floating-point operations, which do not depend on how busy the machine is."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

from graspl.runs import RunFolder, write_json_atomic

COUNTED_STEPS = 8  # Optimizer steps to count, so that what a method does every few steps is included


class MeasureCost(Callback):
    """Writes `<default_root_dir>/cost.json`: the operations before the first step, and of a step.

    `start_flops` is what a method does when training starts, such as a throw-away fit; `step_flops` is the mean of the
    first COUNTED_STEPS optimizer steps. It counts matrix products in this process (`torch.utils.flop_counter`, which
    misses those of attention on the CPU), and no validation. A fit that is resumed goes on counting, from the checkpoint.
    """

    def __init__(self) -> None:
        self._counter: FlopCounterMode | None = None
        self._counting, self._start, self._steps = False, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted, for a checkpoint."""
        return {"counting": self._counting, "start": self._start, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was counted: counted steps may differ from others in the last bits."""
        self._counting, self._start, self._steps = (
            state_dict[name] for name in ("counting", "start", "steps")
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count what the module does when training starts: its own hook comes after this one."""
        if trainer.global_step == 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._counting, self._start, self._steps = True, 0, 0
            self._open()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Count the batch."""
        if self._counting:
            self._start += self._close()  # open before the first batch of a new fit only
            self._open()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Add the batch, and write after enough steps."""
        if self._counting:
            self._steps += self._close()
            if trainer.global_step >= COUNTED_STEPS:
                self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write after a shorter fit; a fit that is resumed after its last step has no end of training."""
        if self._counting and trainer.global_step:
            self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop counting."""
        self._close()
        self._counting = False

    def _open(self) -> None:
        self._counter = FlopCounterMode(display=False)
        self._counter.__enter__()

    def _close(self) -> int:
        """Return the operations since `_open`; 0 where nothing was open."""
        if self._counter is None:
            return 0
        self._counter.__exit__(None, None, None)
        counted, self._counter = self._counter.get_total_flops(), None
        return counted

    def _write(self, trainer: Trainer) -> None:
        self._counting = False
        if trainer.is_global_zero:
            content = {"start_flops": self._start, "step_flops": self._steps / trainer.global_step}
            write_json_atomic(RunFolder(trainer.default_root_dir).cost, content)
