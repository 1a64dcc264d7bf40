"""LoRA fine-tuning: the training step that all methods share. Methods differ in their parts."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import FSDPStrategy
from peft import PeftModel
from torch import Tensor
from torch.optim import Optimizer

from graspl.adapters import LoraOptions, Site, adapter_off
from graspl.adapters.forward import model_logits
from graspl.adapters.loss import answer_logits, logits_only_at, summed_loss_at
from graspl.adapters.sharding import total, whole
from graspl.data.tokens import TokenizedConversation
from graspl.directions.basis import Directions
from graspl.edits.base import AttachedEdits, SiteEdit, StreamEdit
from graspl.evaluation.logprobs import answer_mask
from graspl.methods import state
from graspl.methods.directions import DirectionSource
from graspl.methods.model import ModelOptions, build_model, prepare_training
from graspl.methods.own_text import OwnText
from graspl.methods.parts import check_parts
from graspl.methods.probes import check_prefixes
from graspl.methods.step import LOSS_UNIT, StepSums, default_optimizer, optimizer_and_schedule
from graspl.methods.validation import Validation, log_validation
from graspl.penalties.base import Penalty
from graspl.ranges import NonNegativeInt
from graspl.starts import PlainStart, Start
from graspl.transforms.base import Finisher, Transform


class LoRALitModule(LightningModule):
    """Trains a LoRA adapter on the answers; without parts this is the naive fit.

    Every answer token weighs the same, however the rows fall into batches, accumulation steps and processes: losses are
    summed, and gradients are divided by the tokens of the whole optimizer step. The checkpoint holds the adapter alone.

    Args:
        base_model: hub name, folder in Transformers format, or `organism`.
        lora: the new adapter's options.
        adapter: PEFT folder to evaluate; on the command line None takes the run folder's own. A fit starts a new one.
        directions: a directions file, or how a fit finds them; validation measures the reliance on them.
        start: how the factors begin.
        penalties: added to the loss.
        edits: done to the residual stream or to sites, in training or at inference.
        transforms: done to the finished factors, in this order.
        optimizer: any of `torch.optim`; it is given the adapter's parameters.
        schedule: of the learning rate, as `transformers.get_scheduler` names it.
        warmup_steps: optimizer steps until the learning rate is reached.
        **kwargs: as in ModelOptions.
    """

    def __init__(
        self,
        base_model: str,
        lora: LoraOptions = LoraOptions(),  # noqa: B008 - never changed
        adapter: str | None = None,
        directions: DirectionSource | str | None = None,
        start: Start = PlainStart(),  # noqa: B008 - never changed
        penalties: list[Penalty] | None = None,
        edits: list[StreamEdit | SiteEdit] | None = None,
        transforms: list[Transform] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant_with_warmup",
        warmup_steps: NonNegativeInt = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.options = ModelOptions(**kwargs)
        self.base_model, self.lora, self.adapter, self.directions = base_model, lora, adapter, directions
        # Copies, so that an instance may be used in several fits
        self.start, self.penalties = deepcopy(start), deepcopy(penalties or [])
        self.edits, self.transforms = deepcopy(edits or []), deepcopy(transforms or [])
        self.weighed = [each for each in self.penalties if each.weight]
        self.optimizer, self.schedule, self.warmup_steps = optimizer, schedule, warmup_steps
        self.model: PeftModel | None = None
        self.sites: list[Site] = []
        self.directions_in_use: Directions | None = None
        self.validation, self.sums, self._own_text = Validation(), StepSums(), OwnText()
        self.attached, self.finisher = AttachedEdits(self.edits), Finisher(self.transforms)
        self._random_state: Tensor | None = None
        self._prefixes_checked = False
        # The checkpoint holds only the adapter; on_load_checkpoint checks what it is of
        self.strict_loading = False
        self.register_state_dict_post_hook(state.drop_frozen)

    @property
    def is_flat_sharded(self) -> bool:
        """Whether FSDP1 shards the frozen weights, so that graspl itself averages the adapter's gradients."""
        return self._trainer is not None and isinstance(self.trainer.strategy, FSDPStrategy)

    @property
    def found_directions(self) -> Directions | None:
        """The directions found within the fit; None where they come from a file or are not found yet."""
        return None if isinstance(self.directions, str) else self.directions_in_use

    @property
    def trains_A(self) -> bool:
        """Whether the optimizer has A as well as B."""
        return self.start.train_A

    def setup(self, stage: str) -> None:
        """Read the directions file and check the parts, before the base model is loaded."""
        check_parts(self, stage)

    def configure_model(self) -> None:
        """Load the base model and put the adapter on it; called once a stage, done once."""
        if self.model is None:
            self.model, self.sites = build_model(self)

    def own_text(self, count: int) -> list[TokenizedConversation]:
        """Return `count` rows that the base model wrote before training; every process must call it."""
        return self._own_text.rows(self, count)

    def whole_sites(self) -> list[Site]:
        """Return the sites with whole factors, also where they are sharded; every process must call it."""
        return [replace(site, A=whole(site.A), B=whole(site.B)) for site in self.sites]

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the logits, (b, L, vocabulary)."""
        return model_logits(self.model, batch)

    @torch.no_grad()
    def base_forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the base model's logits, (b, L, vocabulary): adapter off, no edits, no gradients."""
        assert self.model is not None, "configure_model comes first"
        with adapter_off(self.model), self.attached.off():
            return self(batch)

    def unedited(self) -> AbstractContextManager[None]:
        """Run forward passes within the block without edits and stream constraints."""
        return self.attached.off()

    def on_fit_start(self) -> None:
        """Put the model in training mode, which from_pretrained and validation leave, and prepare the transforms."""
        prepare_training(self)
        # Data and suites may be others than in an earlier fit
        self.validation, self._own_text = Validation(), OwnText()
        for each in self.transforms:
            each.prepare(self)

    def on_train_start(self) -> None:
        """Find the directions, set the start, and prepare the parts; the adapter is on its device and restored."""
        if self._random_state is not None and self.trainer.world_size == 1:
            torch.set_rng_state(self._random_state)
        self.find_directions()
        if self.global_step == 0:
            self.start.begin(self)
        for each in (*self.weighed, *self.transforms):
            each.begin(self)
        self.attached.attach(self.model, self.directions_in_use)

    def find_directions(self) -> None:
        """Find the directions within the fit, where no file and no checkpoint has them."""
        if isinstance(self.directions, DirectionSource) and self.directions_in_use is None:
            self.directions_in_use = self.directions.find(self)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss: summed cross-entropy of the answers, plus weighed penalties a token, in units of LOSS_UNIT."""
        logits = answer_logits(self.model, self, batch)
        loss, tokens = summed_loss_at(logits, batch)
        terms = [each.weight * each.term(self, batch, logits) * tokens for each in self.weighed]
        self.sums.add(tokens, loss, sum(terms[1:], terms[0]) if terms else None)
        return sum(terms, loss) * LOSS_UNIT

    def answer_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy summed over a batch's answer tokens, (), in nats, and their number, ()."""
        return summed_loss_at(answer_logits(self.model, self, batch), batch)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the gradient of summed losses into that of the mean over all answer tokens of the step."""
        state.gather_gradients(self)
        self.sums.finish(self, total(self.sums.take()))

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip as Lightning does, also by norm under FSDP1, where Lightning refuses since gradients would be in pieces."""
        if self.is_flat_sharded and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            torch.nn.utils.clip_grad_norm_(list(state.factors(self).values()), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """Return the optimizer over the adapter and its schedule, stepped once an optimizer step."""
        return optimizer_and_schedule(self)

    def on_train_end(self) -> None:
        """Check that the loss of the last steps was a number, and let the start say what became of it."""
        self.sums.raise_if_bad()
        self.start.end(self)

    def teardown(self, stage: str) -> None:
        """Leave the model without hooks."""
        self.attached.detach()
        for each in self.weighed:
            each.end()

    def on_validation_epoch_start(self) -> None:
        """Reset the suites, with the edits attached and, inside a fit, with the factors transformed."""
        names = getattr(self.trainer.datamodule, "suite_names", list)() or ["task"]  # type: ignore[attr-defined]
        self.validation.start(names, kl=self.options.measure_kl or self.trainer.state.fn != "fit")
        self.attached.attach(self.model, self.directions_in_use)
        if self.trainer.state.fn == "fit":  # an adapter that was saved is transformed already
            self.finisher.apply(self)

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure one batch of a suite with the adapter and without it."""
        if not batch:
            return
        if "prefix_ids" in batch and not self._prefixes_checked:
            check_prefixes(self, batch)
            self._prefixes_checked = True
        mask = answer_mask(batch, batch["input_ids"].shape[1])
        # No other logits are computed: over a large vocabulary they can cost more than the layers
        with logits_only_at(self.model, mask.flatten().nonzero()[:, 0], mask.numel()):
            base = self.base_forward(batch) if self.validation.needs_base(dataloader_idx) else None
            self.validation.update(dataloader_idx, batch, self(batch), base)

    def on_validation_epoch_end(self) -> None:
        """Log every suite's scores and the headline figures, and put the trained factors back."""
        if not self.trainer.sanity_checking:
            self.validation.measure_others(self, self.trainer.datamodule)  # type: ignore[attr-defined]
        log_validation(self)
        if self.trainer.state.fn == "fit" and not (self.options.measure_kl or self.trainer.sanity_checking):
            self.validation.keep_base()
        self.finisher.undo(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the adapter is of, and the random state; the state dict holds the adapter alone."""
        self.sums.raise_if_bad()
        state.keep(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this module, and take its directions and its random state."""
        self.configure_model()
        self._random_state, found = state.restored(self, checkpoint)
        self.directions_in_use = found or self.directions_in_use

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the adapter; under FSDP1 without gathering the frozen weights, which its own hooks would do."""
        if self.is_flat_sharded:
            return {name: p.detach() for name, p in state.factors(self).items()}
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the adapter; under FSDP1 without gathering the frozen weights."""
        if self.is_flat_sharded:
            return state.load_flat(self, state_dict)
        return super().load_state_dict(state_dict, *args, **kwargs)
