"""The two kinds of constraint: on LoRA factors, and on the residual stream."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from graspl.adapters.sharding import whole
from graspl.adapters.sites import Site
from graspl.constraints.sharded import Rider
from graspl.directions.basis import Directions
from graspl.errors import GrasplError

Forward = Callable[[dict[str, Any]], Any]
"""Runs a model on a batch."""

# Far above rounding (a bfloat16 factor keeps about three digits), far below what training without a constraint makes
START_TOLERANCE = 1e-2


class FactorConstraint(ABC):
    """Holds a quantity h of the LoRA factors at zero while the rest of the update is free.

    To add one, write a dataclass with three methods, pure tensor maths, and add it to the list in
    `tests/constraints/test_contract.py`.
    """

    k: int | None = 1
    """Directions a site or layer; None holds all that there are."""

    @property
    def factors(self) -> set[str]:
        """Which factors `project_step` changes, of `A` and `B`; two constraints on the same one would undo each other."""
        return {"B"}

    @abstractmethod
    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the bases for these sites and bring the factors to where h = 0.

        Args:
            sites: live factors of an adapter that has not been trained (B = 0), or was trained under this constraint.
            directions: of the same sites, or of their layers.

        Raises:
            GrasplError: the directions do not fit the sites, or the adapter already relies on them.
        """

    @abstractmethod
    def project_gradients(self, sites: Sequence[Site], rider: Rider | None = None) -> None:
        """Remove from the gradients what would change h, to first order.

        Args:
            sites: as bound; their `.grad` is changed in place.
            rider: numbers that travel with the projection's sum over processes, if it sends one.
        """

    @abstractmethod
    def project_step(self, sites: Sequence[Site]) -> None:
        """Bring the factors back to h = 0, after the optimizer has moved them.

        Args:
            sites: as bound; their data is changed in place.
        """


class StreamConstraint(ABC):
    """Holds a quantity of the residual stream; it acts in forward and backward passes, not on factors."""

    k: int | None = None
    """Directions a layer; None holds all that every layer has."""

    @abstractmethod
    def attach(self, layers: Mapping[str, nn.Module], directions: Directions) -> None:
        """Act on the streams after these layers from now on.

        Args:
            layers: all decoder layers by name, from first to last.
            directions: of these layers.

        Raises:
            GrasplError: the directions are of other layers, or too few.
        """

    @abstractmethod
    def detach(self) -> None:
        """Leave the model as it was before `attach`."""

    @abstractmethod
    def suspended(self) -> AbstractContextManager[None]:
        """Leave forward passes within the block alone."""

    @property
    @abstractmethod
    def needs_batch(self) -> bool:
        """Whether `observe` must see every training batch, with its labels."""

    @abstractmethod
    def observe(self, batch: dict[str, Any], step: int, base_forward: Forward) -> None:
        """See a training batch before its forward pass.

        Args:
            batch: with `labels`, (b, L).
            step: optimizer steps taken so far.
            base_forward: runs the base model without gradients; `logits_to_keep` in a batch saves logits.
        """

    @abstractmethod
    def penalty(self) -> Tensor | None:
        """Return what the forward pass since `observe` adds to the training loss, as a multiple of it, (), or None."""


Constraint = FactorConstraint | StreamConstraint
"""Either kind."""


def require_zero_reliance(site: Site, h: Tensor, size: Tensor) -> None:
    """Check that h is zero up to rounding, so that training may start or go on.

    Args:
        site: named in the error.
        h: what the constraint holds, any shape.
        size: () norm that h would have if the whole factor lay along the directions; may be of shards.

    Raises:
        GrasplError: the adapter was trained without this constraint, or does not start at zero.
    """
    if h.norm() > START_TOLERANCE * whole(size):
        raise GrasplError(
            f"{site.name}: the adapter relies on the directions before the first step (init_lora_weights of PiSSA, OLoRA "
            "or LoftQ kind, or an adapter trained without this constraint); start a new one with init_lora_weights: true"
        )
