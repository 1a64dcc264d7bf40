"""GRASP: fine-tune in the null space of the spurious directions."""

import hashlib
from copy import deepcopy
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import AdamW, Optimizer

from graspl.activations.natural import NaturalDirections
from graspl.adapters.checkpoint import CHECKPOINT_KEY
from graspl.adapters.options import LoraOptions
from graspl.adapters.residual import decoder_layers
from graspl.adapters.sharding import total
from graspl.constraints.base import Constraint
from graspl.constraints.combined import default_constraint, widen
from graspl.constraints.sharded import travelling
from graspl.directions.basis import Directions
from graspl.directions.from_weights import Identification
from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule
from graspl.methods.rounds import directions_by_rounds


def default_optimizer(params: Any) -> Optimizer:
    """Return AdamW at learning rate 1e-3 without weight decay: what is held slows the fit, and coherence holds."""
    return AdamW(params, lr=1e-3, weight_decay=0.0, fused=True)


class GRASPLitModule(LoRALitModule):
    """LoRA whose update never comes to rely on the spurious directions.

    The directions come from a file (the two-run way: any adapter, `graspl identify`), or from within the fit: a
    throw-away adapter is trained naively for a few steps, `identification` finds the directions in it, and the fit
    begins anew under the constraint. A checkpoint carries directions found within the fit, so a resumed run has them.

    `on_before_optimizer_step` projects the gradient, before clipping. In exact mode the step is projected as well:
    Adam divides each coordinate by its own scale, which carries a projected gradient out of the null space again.

    Args:
        directions: a file made by `graspl identify` or by a naive fit; None finds them within the fit.
        identification: how; None takes `NaturalDirections`, which need a text, of the task (`data.text`) or their own. Not
            used where a file is given.
        constraint: what is held; None takes `default_constraint()`.
        exact: project every step too; without it only the gradient is projected, and reliance creeps in.
        identification_steps: optimizer steps of the throw-away adapter, at most.
        identification_stable: agreement of one step's written directions with the last one's at which it ends, 0..1.
        rounds: of finding directions under the constraint so far, at most; ends when nothing above the noise floor is left.
        lora: as in AdapterLitModule; chosen with the constraint and the optimizer's learning rate.
        optimizer: as in LoRALitModule.
        **kwargs: as in LoRALitModule.

    Source:
        arXiv:2605.27676, Eq. 8-10; exact mode is own, after Adam-NSCL (arXiv:2103.07113), and so is finding the
        directions within the fit. Which identification and constraint are best was measured (docs/method.md).
    """

    def __init__(
        self,
        directions: str | None = None,
        # None rather than the defaults themselves: jsonargparse would keep their k when another class is named
        identification: Identification | None = None,
        constraint: Constraint | None = None,
        exact: bool = True,
        identification_steps: int = 20,
        identification_stable: float = 0.99,
        rounds: int = 1,
        lora: LoraOptions = LoraOptions(r=32, lora_alpha=64),  # noqa: B008 - never changed
        optimizer: OptimizerCallable = default_optimizer,
        **kwargs: Any,
    ) -> None:
        super().__init__(directions=directions, lora=lora, optimizer=optimizer, **kwargs)
        self.identification = identification or NaturalDirections()
        self.constraint = deepcopy(constraint) if constraint is not None else default_constraint()
        self.exact = exact
        self.identification_steps = identification_steps
        self.identification_stable = identification_stable
        self.rounds = rounds
        self._is_bound = False

    @property
    def found_directions(self) -> Directions | None:
        """The directions found within the fit; None where they come from a file or are not found yet."""
        return self._loaded_directions if self.directions is None else None

    def configure_optimizers(self) -> Any:
        """Add the projection of every step to the optimizer."""
        configured = super().configure_optimizers()
        if self.exact:
            configured["optimizer"].register_step_post_hook(self._project_step)
        return configured

    def on_train_start(self) -> None:
        """Find the directions where there are none, and bind the constraint to the adapter.

        The adapter is on its device and restored by now.

        Raises:
            GrasplError: no directions can be found, or they do not fit the adapter.
        """
        super().on_train_start()
        if self._loaded_directions is None:
            self._loaded_directions = directions_by_rounds(
                self,
                self.identification,
                self.constraint,
                rounds=self.rounds,
                max_steps=self.identification_steps,
                stable=self.identification_stable,
            )
        widen(self.constraint, self._loaded_directions)
        self.constraint.bind(self.sites, self._loaded_directions)
        self._is_bound = True
        assert self.model is not None, "configure_model comes first"
        self.constraint.attach(decoder_layers(self.model))

    def on_fit_end(self) -> None:
        """Take the constraint's hooks off the model."""
        self.constraint.detach()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Let the constraint see the batch, train on it as LoRA does, and add what the constraint asks for."""
        self.constraint.observe(batch, self.global_step, self, self.base_forward)
        loss = super().training_step(batch, batch_idx)
        penalty = self.constraint.penalty()
        return loss if penalty is None else loss + loss.detach() * penalty

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep which directions the adapter was trained under, and themselves where no file holds them."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["directions_sha256"] = self._directions_sha256()
        if self.found_directions is not None:
            found = {"tensors": self.found_directions.tensors(), "metadata": self.found_directions.metadata}
            checkpoint[CHECKPOINT_KEY]["directions"] = found

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the fit goes on under the same directions, or take those of the checkpoint.

        Raises:
            GrasplError: the file has changed, or another one is named.
        """
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint[CHECKPOINT_KEY]
        if kept.get("directions_sha256") != self._directions_sha256():
            raise GrasplError(
                f"model.directions: {self.directions} is not the file that the checkpoint was trained under; name that one, "
                "or start a new run"
            )
        if "directions" in kept:
            found = kept["directions"]
            self._loaded_directions = Directions.from_tensors(
                found["tensors"], found["metadata"], "ckpt_path"
            )

    def _directions_sha256(self) -> str | None:
        """Return the hexadecimal SHA-256 of the directions file; None where none is named or there."""
        if self.directions is None or not Path(self.directions).is_file():
            return None
        with Path(self.directions).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Project the gradient and average it over the step's tokens; their count travels with what the projection sends."""
        self.gather_gradients()
        with travelling(self.take_step_sums()) as sums:
            self.constraint.project_gradients(self.sites)
        self.finish_sums(sums.value if sums.arrived else total(sums.value))

    def _reliance_k(self, directions: Directions) -> int:
        parts: list[Any] = getattr(self.constraint, "parts", [self.constraint])
        held = [part.k for part in parts if part.directions is None and getattr(part, "k", None) is not None]
        return min(held, default=super()._reliance_k(directions))

    def _project_step(self, *_: Any) -> None:
        # To restore a sharded optimizer PyTorch takes an empty step before the fit begins
        if self._is_bound:
            self.constraint.project_step(self.sites)
