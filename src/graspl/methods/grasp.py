"""GRASP: fine-tune in the null space of the spurious directions."""

import hashlib
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from graspl.constraints.base import Constraint
from graspl.constraints.write import WriteConstraint
from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.methods.base import CHECKPOINT_KEY
from graspl.methods.lora import LoRALitModule


class GRASPLitModule(LoRALitModule):
    """LoRA whose update never comes to rely on the given directions.

    `on_before_optimizer_step` projects the gradient, before clipping. In exact mode the step is projected as well:
    Adam divides each coordinate by its own scale, which carries a projected gradient out of the null space again.

    Args:
        directions: a file made by `graspl identify` or by a naive fit.
        constraint: what is held at zero.
        exact: project every step too; without it only the gradient is projected, and reliance creeps in.
        **kwargs: as in LoRALitModule.

    Source:
        arXiv:2605.27676, Eq. 8-10; exact mode is own, after Adam-NSCL (arXiv:2103.07113).
    """

    def __init__(
        self,
        directions: str | None = None,
        constraint: Constraint = WriteConstraint(),  # noqa: B008 - copied below
        exact: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(directions=directions, **kwargs)
        self.constraint = deepcopy(constraint)
        self.exact = exact

    def configure_optimizers(self) -> Any:
        """Add the projection of every step to the optimizer."""
        configured = super().configure_optimizers()
        if self.exact:
            configured["optimizer"].register_step_post_hook(self._project_step)
        return configured

    def setup(self, stage: str) -> None:
        """Read the directions, without which there is nothing to hold.

        Raises:
            GrasplError: none are given, or they are of another base model.
        """
        if stage == "fit" and self.directions is None:
            raise GrasplError(
                "model.directions: no file is given; make one with graspl identify and set it, or fit LoRALitModule"
            )
        super().setup(stage)

    def on_train_start(self) -> None:
        """Bind the constraint to the adapter, which is on its device and restored by now.

        Raises:
            GrasplError: the directions do not fit the adapter.
        """
        super().on_train_start()
        assert self._loaded_directions is not None, "setup('fit') comes first"
        self.constraint.bind(self.sites, self._loaded_directions)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep which directions the adapter was trained under."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["directions_sha256"] = self._directions_sha256()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the fit goes on under the same directions.

        Raises:
            GrasplError: the file has changed, or another one is named.
        """
        super().on_load_checkpoint(checkpoint)
        if checkpoint[CHECKPOINT_KEY].get("directions_sha256") != self._directions_sha256():
            raise GrasplError(
                f"model.directions: {self.directions} is not the file that the checkpoint was trained under; name that one, "
                "or start a new run"
            )

    def _directions_sha256(self) -> str | None:
        """Return the hexadecimal SHA-256 of the directions file; None where none is named or there."""
        if self.directions is None or not Path(self.directions).is_file():
            return None
        with Path(self.directions).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Average the gradient over the step's tokens, then project it."""
        super().on_before_optimizer_step(optimizer)
        self.constraint.project_gradients(self.sites)

    def _reliance_k(self, directions: Directions) -> int:
        parts: list[Any] = getattr(self.constraint, "parts", [self.constraint])
        held = [part.k for part in parts if part.directions is None and hasattr(part, "k")]
        return min(held, default=super()._reliance_k(directions))

    def _project_step(self, *_: Any) -> None:
        self.constraint.project_step(self.sites)
