"""Post-hoc transforms: train naively, then change the finished update."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from graspl.methods.lora import LoRALitModule


class FinishedLitModule(LoRALitModule, ABC):
    """Naive LoRA whose finished factors are changed before they are validated or saved; training never sees it.

    A validation inside a fit is of the changed factors, too, so the trade-off curve is that of the transform.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._trained: list[Tensor] = []

    @abstractmethod
    def finish(self) -> None:
        """Change the factors of `self.sites` in place."""

    @property
    def _factors(self) -> list[Tensor]:
        return [p for site in self.sites for p in (site.A, site.B)]

    @torch.no_grad()
    def change(self) -> None:
        """Keep the trained factors and change them; `restore` puts them back."""
        self._trained = [p.detach().clone() for p in self._factors]
        self.finish()

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what `change` kept, where it was called."""
        for p, value in zip(self._factors, self._trained, strict=bool(self._trained)):
            p.copy_(value)
        self._trained = []

    def on_validation_epoch_start(self) -> None:
        """Change the factors before a validation inside a fit; an adapter that was saved is changed already."""
        super().on_validation_epoch_start()
        if self.trainer.state.fn == "fit":
            self.change()

    def on_validation_epoch_end(self) -> None:
        """Log, then go on training from where it was."""
        super().on_validation_epoch_end()
        self.restore()

    def adapter_state(self) -> dict[str, Tensor]:
        """Return the adapter's tensors, changed."""
        self.change()
        # Copies: on the CPU the tensors are the live factors, which are put back
        state = {name: tensor.clone() for name, tensor in super().adapter_state().items()}
        self.restore()
        return state
