"""What every constraint offers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from graspl.adapters.sharding import whole
from graspl.adapters.sites import Site
from graspl.constraints.answers import Forward
from graspl.directions.basis import Directions
from graspl.errors import GrasplError

# Far above rounding (a bfloat16 factor keeps about three digits), far below what training without a constraint makes
START_TOLERANCE = 1e-2


class Constraint(ABC):
    """Holds a quantity h of the fine-tune at its start value while the rest of the update is free.

    A new constraint is one class with three methods, pure tensor maths, and one line in the list of
    `tests/constraints/test_contract.py`, which gives it its tests.
    """

    directions: str | None = None

    def own(self, directions: Directions) -> Directions:
        """Return the constraint's own directions where it names a file, else those given.

        Raises:
            GrasplError: the file cannot be read, or is of another base model than those given.
        """
        if self.directions is None:
            return directions
        own = Directions.load(self.directions)
        own.require_base_model(directions.metadata.get("base_model", own.metadata.get("base_model", "")))
        return own

    @abstractmethod
    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the bases for these sites and bring the factors to where h = 0.

        Args:
            sites: live parameters of an adapter that has not been trained (B = 0) or that was trained
                under this constraint.
            directions: of the same sites.

        Raises:
            GrasplError: the directions do not fit the sites, or the adapter relies on them already.
        """

    # A default for the constraints that need neither the model nor the batch, which are most
    def attach(self, layers: Mapping[str, nn.Module]) -> None:  # noqa: B027
        """Take the model's decoder layers; comes after `bind`.

        Args:
            layers: by name, from first to last (`decoder_layers`).

        Raises:
            GrasplError: the directions are of other layers.
        """

    def detach(self) -> None:  # noqa: B027
        """Leave the model as it was before `attach`."""

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Leave the model as it is within the block, so that a pass beside the task's own is not touched."""
        yield

    @property
    def needs_batch(self) -> bool:
        """Whether `observe` must see every training batch, with its labels."""
        return False

    def observe(self, batch: dict[str, Any], step: int, forward: Forward, base_forward: Forward) -> None:  # noqa: B027
        """See a training batch before its forward pass.

        Args:
            batch: with `labels`, (b, L).
            step: optimizer steps taken so far.
            forward: runs the adapted model on a batch.
            base_forward: runs the model without its adapter, and without gradients; a constraint that needs no logits may add
                Transformers' `logits_to_keep` to the batch.
        """

    def penalty(self) -> Tensor | None:
        """Return what the forward pass since `observe` adds to the training loss, as a multiple of it, (), or None."""
        return None

    @abstractmethod
    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Remove from the gradients what would change h, to first order.

        Args:
            sites: as bound; their `.grad` is changed in place.
        """

    @abstractmethod
    def project_step(self, sites: Sequence[Site]) -> None:
        """Bring the factors back to h = 0, after the optimizer has moved them.

        Args:
            sites: as bound; their data is changed in place.
        """


def require_zero_reliance(site: Site, h: Tensor, size: Tensor) -> None:
    """Check that training may start or go on from here: h is zero, up to rounding.

    Args:
        site: named in the error.
        h: what the constraint holds, any shape.
        size: () norm that h would have if the whole factor lay along the directions; may be of shards.

    Raises:
        GrasplError: it is not: an adapter trained without this constraint, or one that does not start at zero.
    """
    if h.norm() > START_TOLERANCE * whole(size):
        raise GrasplError(
            f"{site.name}: the adapter relies on the directions before the first step (init_lora_weights of PiSSA, OLoRA "
            "or LoftQ kind, or an adapter trained without this constraint); start a new one with init_lora_weights: true"
        )
