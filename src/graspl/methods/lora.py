"""Naive LoRA fine-tuning, the baseline that every other method starts from."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import get_scheduler

from graspl.adapters.packing import attend_row_by_row
from graspl.adapters.sharding import average_gradients, total
from graspl.errors import GrasplError
from graspl.methods.base import AdapterLitModule
from graspl.methods.loss import logits_only_at, summed_loss, summed_loss_at

LOSS_UNIT = 1 / 256
"""Keeps summed losses in the range that half precision likes; it cancels."""


def default_optimizer(params: Any) -> Optimizer:
    """Return AdamW at learning rate 2e-4 without weight decay, the usual start for LoRA; fused: one kernel."""
    return AdamW(params, lr=2e-4, weight_decay=0.0, fused=True)


class LoRALitModule(AdapterLitModule):
    """Trains a LoRA adapter on the answers.

    Every answer token weighs the same, however the rows fall into batches, accumulation steps and processes:
    losses are summed, and gradients are divided by the tokens of the whole optimizer step.

    Args:
        optimizer: any of `torch.optim`; it is given the adapter's parameters.
        schedule: of the learning rate, as `transformers.get_scheduler` names it.
        warmup_steps: optimizer steps until the learning rate is reached.
        **kwargs: as in AdapterLitModule.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant_with_warmup",
        warmup_steps: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.optimizer = optimizer
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self._step_sums: Tensor | None = None
        self._has_extra = False
        self._bad_step: Tensor | None = None

    def on_fit_start(self) -> None:
        """Put the model in training mode, which from_pretrained and validation leave."""
        assert self.model is not None, "configure_model comes first"
        self.model.train()
        packed = getattr(self.trainer.datamodule, "packing", False)  # type: ignore[attr-defined]
        # torch.compile would break a layer in two where rows are counted
        if packed and self.device.type == "cpu" and not self.compile_layers:
            attend_row_by_row(self.model.get_base_model())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the summed cross-entropy of the batch's answers, in units of LOSS_UNIT."""
        if type(self).extra_loss is LoRALitModule.extra_loss:
            (loss, tokens), extra = self.answer_loss(batch), None
        else:
            logits = self(batch)
            loss, tokens = summed_loss(logits, batch["labels"])
            extra = self.extra_loss(batch, logits)
        self._has_extra = extra is not None
        extra = loss.new_zeros(()) if extra is None else extra
        sums = torch.stack([tokens, loss.detach(), (extra * tokens).detach()])
        self._step_sums = sums if self._step_sums is None else self._step_sums + sums
        return (loss + extra * tokens if self._has_extra else loss) * LOSS_UNIT

    def extra_loss(self, batch: dict[str, Any], logits: Tensor) -> Tensor | None:
        """Return what a method adds to the mean cross-entropy, (), in nats a token; None adds nothing.

        A rival that regularises overrides this alone.

        Args:
            batch: as trained on.
            logits: (b, L, vocabulary) of this step, with their graph.
        """
        return None

    def answer_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy summed over a batch's answer tokens, in nats, and their number.

        Where the batch says on the host where they are, no other logits are worked out.
        """
        index = batch.get("answer_index")
        if index is None:
            return summed_loss(self(batch), batch["labels"])
        with logits_only_at(self.model, index):
            logits = self(batch)
        return summed_loss_at(logits, batch["labels"], index)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the gradient of summed losses into that of the mean over all answer tokens of the step."""
        self.gather_gradients()
        self.finish_sums(total(self.take_step_sums()))

    def gather_gradients(self) -> None:
        """Average the adapter's gradients over processes where the strategy does not; first in an optimizer step."""
        if self.is_flat_sharded:
            average_gradients(list(self.trained().values()))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, also by norm under FSDP1, where Lightning refuses since gradients would be in pieces."""
        if self.is_flat_sharded and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            torch.nn.utils.clip_grad_norm_(list(self.trained().values()), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def take_step_sums(self) -> Tensor:
        """Return what this process has summed over the optimizer step, and begin anew.

        Returns:
            (3,) answer tokens, their loss and what a method added to it, both in nats.
        """
        sums, self._step_sums = self._step_sums, None
        assert sums is not None, "training_step comes first"
        return sums

    def finish_sums(self, sums: Tensor) -> None:
        """Average the gradients, and log the loss, over the whole optimizer step: all its micro-batches and processes.

        Args:
            sums: (3,) of `take_step_sums`, over all processes.

        Raises:
            GrasplError: the loss is NaN or infinite.
        """
        tokens = sums[0].clamp_min(1)
        mean, extra = sums[1] / tokens, sums[2] / tokens
        self._require_finite(mean)
        self.log("train/loss", mean, prog_bar=True)
        if self._has_extra:
            self.log("train/extra_loss", extra)
        # Lightning has divided by the accumulation steps, the strategy by the processes
        factor = self.trainer.accumulate_grad_batches * self.trainer.world_size / LOSS_UNIT / tokens
        for p in self.parameters():
            if p.grad is not None:
                p.grad.mul_(factor)

    def _require_finite(self, loss: Tensor) -> None:
        """Remember the first step whose loss is no number; ask for it where that costs nothing, or seldom."""
        if self._bad_step is None:
            self._bad_step = torch.full_like(loss, -1)
        first = (self._bad_step < 0) & ~torch.isfinite(loss)
        self._bad_step = torch.where(first, self.global_step, self._bad_step)
        # To look at a number on an accelerator is to wait for all that it has yet to do
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined] - 0 logs nothing
        if loss.device.type == "cpu" or (every and (self.global_step + 1) % every == 0):
            self._raise_if_bad()

    def _raise_if_bad(self) -> None:
        step = -1 if self._bad_step is None else int(self._bad_step)
        if step >= 0:
            raise GrasplError(
                f"train/loss is no finite number at step {step}; lower the learning rate or check the data"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapter, unless the loss was no number by then.

        Raises:
            GrasplError: it was.
        """
        self._raise_if_bad()
        super().on_save_checkpoint(checkpoint)

    def on_train_end(self) -> None:
        """See that the loss of the last steps was a number.

        Raises:
            GrasplError: it was not.
        """
        self._raise_if_bad()

    def configure_optimizers(self) -> Any:
        """Return the optimizer over the adapter and its schedule, stepped once an optimizer step."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.trainer.gradient_clip_val and getattr(optimizer, "_step_supports_amp_scaling", False):
            # A fused optimizer would undo the scaling of half precision itself, after clipping, so Lightning refuses the two
            # together; with this the gradients are unscaled first, as for any other optimizer
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        schedule = get_scheduler(
            self.schedule,
            optimizer,
            num_warmup_steps=self.warmup_steps,
            num_training_steps=self._total_steps(),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _total_steps(self) -> int | None:
        """Return the optimizer steps of the whole fit; None without an end.

        `trainer.estimated_stepping_batches` would build the training loader before its state is restored, and
        a resumed run would begin the epoch again (Lightning issue 20550).
        """
        trainer, steps = self.trainer, []
        if trainer.max_steps > 0:
            steps.append(trainer.max_steps)
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.max_epochs not in (None, -1) and datamodule is not None:
            batches, limit = len(datamodule.train_dataloader()), trainer.limit_train_batches
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
            steps.append(-(-batches // trainer.accumulate_grad_batches) * int(trainer.max_epochs))
        if not steps and self.schedule in ("linear", "cosine"):
            raise GrasplError(
                f"model.schedule: {self.schedule} needs an end; set trainer.max_steps or max_epochs"
            )
        return min(steps, default=None)
