"""Direct subtraction: train naively, then take the directions out of the weights. A control."""

from typing import Any

from torch.optim import Optimizer

from graspl.methods.finished import FinishedLitModule
from graspl.methods.grasp import GRASPLitModule
from graspl.methods.lora import LoRALitModule


class SubtractionLitModule(FinishedLitModule, GRASPLitModule):
    """Naive LoRA whose directions are projected out of the finished weights, not held during training.

    What is validated and saved is the adapter after the constraint's `project_step`; training itself never sees it. It
    is the ablation that a reader of GRASP asks for first: is it the training in the null space that matters, or would
    removing the direction afterwards do?

    Source:
        Own, as a control. Use a linear constraint (write, read, residual): an activation constraint has no step to project.
    """

    def finish(self) -> None:
        """Take the directions out of the factors."""
        if self._loaded_directions is not None:
            self.constraint.project_step(self.sites)

    def configure_optimizers(self) -> Any:
        """Leave every step alone."""
        return LoRALitModule.configure_optimizers(self)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the gradient's direction alone."""
        LoRALitModule.on_before_optimizer_step(self, optimizer)
