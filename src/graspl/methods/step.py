"""One optimizer step: every answer token weighs the same, however the rows fall into batches and processes."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import get_scheduler

from graspl.errors import GrasplError

LOSS_UNIT = 1 / 256  # Keeps summed losses in the range that half precision likes; it cancels


class StepSums:
    """What this process sums over an optimizer step: answer tokens, their loss, and what penalties add, in nats."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._bad_step: Tensor | None = None
        self._has_extra = False

    def add(self, tokens: Tensor, loss: Tensor, extra: Tensor | None) -> None:
        """Add a micro-batch, () each; `extra` is what penalties add to its summed loss, None without any."""
        self._has_extra = extra is not None
        extra = torch.zeros_like(loss) if extra is None else extra
        sums = torch.stack([tokens, loss.detach(), extra.detach()])
        self._sums = sums if self._sums is None else self._sums + sums

    def take(self) -> Tensor:
        """Return the sums, (3,), and start again."""
        sums, self._sums = self._sums, None
        assert sums is not None, "training_step comes first"
        return sums

    def finish(self, module: Any, sums: Tensor) -> None:
        """Average the gradients, and log the loss, over the whole optimizer step: all its micro-batches and processes.

        Args:
            module: the LoRALitModule that trains.
            sums: (3,) of `take`, over all processes; a loss that is no finite number is refused.
        """
        tokens = sums[0].clamp_min(1)
        mean, extra = sums[1] / tokens, sums[2] / tokens
        self._require_finite(mean, module)
        module.log("train/loss", mean, prog_bar=True)
        if self._has_extra:
            module.log("train/extra_loss", extra)
        # Lightning has divided by the accumulation steps, the strategy by the processes
        factor = module.trainer.accumulate_grad_batches * module.trainer.world_size / LOSS_UNIT / tokens
        for p in module.parameters():
            if p.grad is not None:
                p.grad.mul_(factor)

    def _require_finite(self, loss: Tensor, module: Any) -> None:
        """Remember the first step whose loss is no number; look at it where that costs nothing, or seldom."""
        if self._bad_step is None:
            self._bad_step = torch.full_like(loss, -1)
        first = (self._bad_step < 0) & ~torch.isfinite(loss)
        self._bad_step = torch.where(first, module.global_step, self._bad_step)
        # To look at a number on an accelerator is to wait for all that it has yet to do
        every = module.trainer.log_every_n_steps  # 0 logs nothing
        if loss.device.type == "cpu" or (every and (module.global_step + 1) % every == 0):
            self.raise_if_bad()

    def raise_if_bad(self) -> None:
        """Check that the loss was a number in every step so far; a GrasplError says in which one it was not."""
        step = -1 if self._bad_step is None else int(self._bad_step)
        if step >= 0:
            raise GrasplError(f"train/loss is not finite at step {step}; lower the learning rate")


def default_optimizer(params: Any) -> Optimizer:
    """Return AdamW at learning rate 2e-4 without weight decay, the usual start for LoRA; fused: one kernel."""
    return AdamW(params, lr=2e-4, weight_decay=0.0, fused=True)


def optimizer_and_schedule(module: Any) -> dict[str, Any]:
    """Return what `configure_optimizers` does: the optimizer over the trained factors, its schedule stepped with it."""
    optimizer = module.optimizer([p for p in module.parameters() if p.requires_grad])
    if module.trainer.gradient_clip_val and getattr(optimizer, "_step_supports_amp_scaling", False):
        # A fused optimizer would undo the scaling of half precision itself, after clipping, so Lightning refuses the two
        # together; with this the gradients are unscaled first, as for any other optimizer
        optimizer._step_supports_amp_scaling = False
    schedule = get_scheduler(
        module.schedule,
        optimizer,
        num_warmup_steps=module.warmup_steps,
        num_training_steps=total_steps(module.trainer, module.schedule),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def total_steps(trainer: Any, schedule: str) -> int | None:
    """Return the optimizer steps of the whole fit; None without an end.

    `trainer.estimated_stepping_batches` would build the training loader before its state is restored, and a resumed fit
    would begin the epoch again (Lightning issue 20550).

    Raises:
        GrasplError: the schedule needs an end, and the trainer has none.
    """
    steps = []
    if trainer.max_steps > 0:
        steps.append(trainer.max_steps)
    if trainer.max_epochs not in (None, -1) and trainer.datamodule is not None:
        batches, limit = len(trainer.datamodule.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps.append(-(-batches // trainer.accumulate_grad_batches) * int(trainer.max_epochs))
    if not steps and schedule in ("linear", "cosine"):
        raise GrasplError(f"model.schedule: {schedule} needs an end; set trainer.max_steps or max_epochs")
    return min(steps, default=None)
