"""Direct subtraction: train naively, then take the directions out of the weights. A control."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from graspl.methods.grasp import GRASPLitModule
from graspl.methods.lora import LoRALitModule


class SubtractionLitModule(GRASPLitModule):
    """Naive LoRA whose directions are projected out of the finished weights, not held during training.

    What is validated and saved is the adapter after the constraint's `project_step`; training itself never sees it. It
    is the ablation that a reader of GRASP asks for first: is it the training in the null space that matters, or would
    removing the direction afterwards do?

    Source:
        Own, as a control. Use a linear constraint (write, read, residual): an activation constraint has no step to project.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._trained: list[Tensor] = []

    def subtract(self) -> None:
        """Take the directions out of the factors; `restore` puts them back."""
        self._trained = [p.detach().clone() for site in self.sites for p in (site.A, site.B)]
        self.constraint.project_step(self.sites)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what `subtract` took, where it was called."""
        factors = [p for site in self.sites for p in (site.A, site.B)]
        for p, value in zip(factors, self._trained, strict=bool(self._trained)):
            p.copy_(value)
        self._trained = []

    def configure_optimizers(self) -> Any:
        """Leave every step alone."""
        return LoRALitModule.configure_optimizers(self)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the gradient's direction alone."""
        LoRALitModule.on_before_optimizer_step(self, optimizer)

    def on_validation_epoch_start(self) -> None:
        """Subtract before a validation inside a fit; an adapter that was saved is subtracted already."""
        super().on_validation_epoch_start()
        if self.trainer.state.fn == "fit" and self._loaded_directions is not None:
            self.subtract()

    def on_validation_epoch_end(self) -> None:
        """Log, then go on training from where it was."""
        super().on_validation_epoch_end()
        self.restore()

    def adapter_state(self) -> dict[str, Tensor]:
        """Return the adapter's tensors with the directions taken out."""
        self.subtract()
        # Copies: on the CPU the tensors are the live factors, which are put back
        state = {name: tensor.clone() for name, tensor in super().adapter_state().items()}
        self.restore()
        return state
