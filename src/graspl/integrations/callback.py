"""GRASP in Transformers' `Trainer` and what is built on it, TRL's `SFTTrainer` among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions
from graspl.integrations.held import HeldAdapter


class GRASPCallback(TrainerCallback):
    """Holds the trained LoRA adapter in the null space of directions.

        trainer = SFTTrainer(..., peft_config=LoraConfig(...), callbacks=[GRASPCallback("directions.safetensors")])

    The trainer clips gradients before any callback is asked, so the norm that it clips by still has the removed part in
    it; set `max_grad_norm=0` where that matters. Adam hardly sees it.

    Args:
        directions: a file that `graspl identify` made, or what it holds.
        constraints: as in HeldAdapter.
        exact: project every step too; without it only the gradient is projected, and reliance creeps in.

    Raises:
        GrasplError: in `on_train_begin`, the directions or the adapter do not fit.
    """

    def __init__(
        self,
        directions: str | Path | Directions,
        constraints: Sequence[Constraint] | None = None,
        *,
        exact: bool = True,
    ) -> None:
        # Before a model is loaded, so that a wrong file costs nothing
        is_read = isinstance(directions, Directions)
        self.directions = directions if is_read else Directions.load(str(directions))
        self.constraints, self.exact = constraints, exact
        self.held: HeldAdapter | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Bind the constraint to the adapter, which is on its device, wrapped and restored by now."""
        self.held = HeldAdapter(kwargs["model"], self.directions, self.constraints)
        self.held.step = state.global_step

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Project the gradient."""
        assert self.held is not None, "on_train_begin comes first"
        self.held.project_gradients()

    def on_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Project the step."""
        assert self.held is not None, "on_train_begin comes first"
        if self.exact:
            self.held.project_step()
        else:
            self.held.step += 1

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Leave the model without hooks."""
        if self.held is not None:
            self.held.release()
