"""What every transform offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor

from graspl.adapters.sharding import whole
from graspl.errors import GrasplError
from graspl.host import Host


class Transform(ABC):
    """Changes the finished factors; a validation inside a fit is of the changed factors too, training is not.

    CONTRIBUTING.md says how to add one.
    """

    needs_directions: ClassVar[bool] = False
    """Whether it reads `host.directions_in_use`."""

    def prepare(self, host: Host) -> None:  # noqa: B027 - most transforms need no preparation
        """Measure the frozen weights, before anything is trained."""

    def begin(self, host: Host) -> None:  # noqa: B027
        """Take the directions, when training starts."""

    @abstractmethod
    def apply(self, host: Host) -> None:
        """Change the factors of `host.sites` in place, without gradients; the module puts them back."""


class Finisher:
    """Applies transforms in order, and puts the trained factors back.

    Args:
        transforms: in the order in which they are applied.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)
        self._trained: list[Tensor] = []

    @torch.no_grad()
    def apply(self, host: Host) -> None:
        """Keep the trained factors and change them."""
        self.undo(host)  # A fit that was stopped within a validation has them changed already
        if self.transforms:
            self._trained = [p.detach().clone() for p in _factors(host)]
        for each in self.transforms:
            each.apply(host)

    @torch.no_grad()
    def undo(self, host: Host) -> None:
        """Put back what `apply` kept, if it was called."""
        for p, value in zip(_factors(host), self._trained, strict=bool(self._trained)):
            p.copy_(value)
        self._trained = []


def _factors(host: Host) -> list[Tensor]:
    return [p for site in host.sites for p in (site.A, site.B)]


def frozen_weight(host: Host, site: str) -> Tensor:
    """Return the base model's weight at a site, (out, in), whole and not quantised; every process must call it."""
    if host.is_flat_sharded:
        fix = "use DDP (--trainer.strategy ddp) or FSDP2 (configs/trainer/fsdp.yaml)"
        raise GrasplError(f"trainer.strategy: a transform reads frozen weights, which FSDP1 splits; {fix}")
    assert host.model is not None, "configure_model comes first"
    layer = host.model.get_base_model().get_submodule(f"{site}.base_layer")
    return whole(dequantize_module_weight(layer).detach())
