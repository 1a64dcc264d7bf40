"""GRASP in any PyTorch loop: three lines beside an optimizer's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from graspl.adapters import adapter_off, decoder_layers, lora_sites
from graspl.adapters.forward import MODEL_INPUTS, model_logits
from graspl.constraints import Constraint, Held
from graspl.directions.basis import Directions
from graspl.errors import GrasplError

# Fields of a model's output that a trainer makes its loss of; TRL reads the second, and gives both.
LOSSES = ("loss", "log_probs")


class HeldAdapter:
    """Holds the LoRA adapter of a PEFT model in the null space of directions, whoever trains it.

        held = HeldAdapter(model, "directions.safetensors")  # before the first step
        for batch in batches:
            model(**batch).loss.backward()
            held.project_gradients()  # before clipping
            optimizer.step()
            held.project_step()

    A constraint that needs the batch or adds to the loss (GRASP's default does) sees both through hooks on the model, so
    the model must be given `labels` and its own loss be used. DDP and FSDP2 wrap the model before it is held.

    Args:
        model: with a LoRA adapter that was not trained, or trained under this constraint.
        directions: a file that `graspl identify` made, or what it holds.
        constraints: what is held; None takes GRASP's defaults, which need directions a layer.

    Raises:
        GrasplError: the directions or the adapter do not fit.
    """

    def __init__(
        self,
        model: PeftModel,
        directions: str | Path | Directions,
        constraints: Sequence[Constraint] | None = None,
    ) -> None:
        if not isinstance(model, PeftModel):
            kind = type(model).__name__
            raise GrasplError(f"model: a {kind} has no LoRA adapter; wrap it with peft.get_peft_model first")
        found = directions if isinstance(directions, Directions) else Directions.load(str(directions))
        name = model.active_adapter
        if not isinstance(name, str):
            raise GrasplError("model: several adapters are active; name one with model.set_adapter")
        config = model.peft_config[name]
        found.require_base_model(config.base_model_name_or_path or model.config.name_or_path)
        self.model, self.held, self.sites = model, Held(constraints), lora_sites(model, name)
        flat = next((site.name for site in self.sites if site.A.ndim != 2 or site.B.ndim != 2), None)
        if flat is not None:
            fix = "use FSDP2 or DDP"
            raise GrasplError(f"{flat}: its factors are pieces of a flat parameter (FSDP1, ZeRO-3); {fix}")
        self.step = 0  # Optimizer steps taken; set it where a run goes on from a checkpoint
        self.held.bind(self.sites, decoder_layers(model), found)
        self._looks = False
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True),
        ]

    def project_gradients(self) -> None:
        """Remove from the gradients what would change what is held; once a step, before clipping."""
        self.held.project_gradients(self.sites)

    def project_step(self) -> None:
        """Bring the factors back to the null space; right after the optimizer's step."""
        self.held.project_step(self.sites)
        self.step += 1

    def release(self) -> None:
        """Take all hooks off the model; the adapter stays as it is."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.held.release()

    def _before(self, model: Any, inputs: Any, fields: dict[str, Any]) -> None:
        """Show the constraint the batch that is about to be trained on."""
        wanted = self.held.needs_batch and model.training and torch.is_grad_enabled()
        if self._looks or not wanted:
            return
        if fields.get("labels") is None:
            fix = "call model(**batch) with them and use its loss, or take a constraint without a tolerance"
            raise GrasplError(f"constraint: it needs the batch's labels; {fix}")
        batch = {name: fields[name] for name in (*MODEL_INPUTS, "labels") if fields.get(name) is not None}
        self._looks = True  # This forward pass is not the trainer's
        try:
            self.held.observe(batch, self.step, self._base_forward)
        finally:
            self._looks = False

    def _after(self, model: Any, inputs: Any, fields: dict[str, Any], output: Any) -> None:
        """Add to the loss what the constraint asks for, in proportion to the loss."""
        if self._looks or not model.training:
            return
        penalty = self.held.penalty()
        if penalty is None:
            return
        given = [name for name in LOSSES if getattr(output, name, None) is not None]
        if not given:
            raise GrasplError("constraint: its tolerance needs the model's loss; set it to None")
        for name in given:
            value: Tensor = output[name]
            # Summed or averaged later on, this is the loss times 1 + penalty, and its own gradient is not scaled
            output[name] = value + value.detach() * penalty

    @torch.no_grad()
    def _base_forward(self, batch: dict[str, Any]) -> Tensor:
        with adapter_off(self.model):
            return model_logits(self.model, batch)
