"""Constraints that are held together in one fit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from graspl.adapters.sites import Site
from graspl.constraints.activation import ActivationConstraint
from graspl.constraints.base import Constraint, FactorConstraint, Forward, StreamConstraint
from graspl.constraints.residual import ResidualConstraint
from graspl.constraints.sharded import Rider
from graspl.directions.basis import Directions
from graspl.errors import GrasplError


def default_constraints() -> list[Constraint]:
    """Return what served best on development organisms: six directions a layer, held and not written along."""
    return [ActivationConstraint(k=6, tolerance=0.04), ResidualConstraint(k=6)]


class Held:
    """Holds several constraints at once.

    Write acts on B alone and read on A alone, so the two are exact together. Stream constraints act on neither factor.

    Args:
        constraints: copied, so that an instance may be used in several fits; None takes `default_constraints`.

    Raises:
        GrasplError: there are none, or two change the same factor, so that only the last would be exact.
    """

    def __init__(self, constraints: Sequence[Constraint] | None = None) -> None:
        self.constraints = deepcopy(list(default_constraints() if constraints is None else constraints))
        # A first: what a pair constraint asks of B depends on A
        self.factors = sorted(
            (each for each in self.constraints if isinstance(each, FactorConstraint)),
            key=lambda each: "B" in each.factors,
        )
        self.streams = [each for each in self.constraints if isinstance(each, StreamConstraint)]
        if not self.constraints:
            raise GrasplError("constraints: none is named; name at least one, or train with LoRALitModule")
        for index, each in enumerate(self.factors):
            for other in self.factors[:index]:
                if shared := each.factors & other.factors:
                    both = f"{type(other).__name__} and {type(each).__name__} both project {min(shared)}"
                    raise GrasplError(f"constraints: {both}, so only the last would hold; name one of them")
        self._is_bound = False

    def bind(self, sites: Sequence[Site], layers: Mapping[str, nn.Module], directions: Directions) -> None:
        """Bind every constraint on factors, and attach every constraint on streams, as their own methods say."""
        for each in self.factors:
            each.bind(sites, directions)
        for each in self.streams:
            each.attach(layers, directions)
        self._is_bound = True

    def release(self) -> None:
        """Leave the model without hooks."""
        for each in self.streams:
            each.detach()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Leave forward passes within the block alone."""
        with ExitStack() as stack:
            for each in self.streams:
                stack.enter_context(each.suspended())
            yield

    @property
    def needs_batch(self) -> bool:
        """Whether `observe` must see every training batch."""
        return self._is_bound and any(each.needs_batch for each in self.streams)

    def observe(self, batch: dict[str, Any], step: int, base_forward: Forward) -> None:
        """Show a training batch to the stream constraints, before its forward pass; does nothing before `bind`."""
        for each in self.streams if self._is_bound else ():
            each.observe(batch, step, base_forward)

    def with_penalty(self, loss: Tensor) -> Tensor:
        """Return a training loss with what the stream constraints add, in proportion to it.

        Summed or averaged later, this is the loss times 1 + penalty; the loss's own gradient is not scaled.
        """
        penalty = self.penalty()
        return loss if penalty is None else loss + loss.detach() * penalty

    def penalty(self) -> Tensor | None:
        """Return the sum of the stream constraints' penalties, (), or None."""
        found = [value for each in self.streams if (value := each.penalty()) is not None]
        return torch.stack(found).sum() if found else None

    def project_gradients(self, sites: Sequence[Site], rider: Rider | None = None) -> None:
        """Project the gradients: g <- g - J^T (J J^T)^-1 J g, Eq. 9 of arXiv:2605.27676; does nothing before `bind`."""
        for each in self.factors if self._is_bound else ():
            each.project_gradients(sites, rider)

    def project_step(self, sites: Sequence[Site]) -> None:
        """Bring the factors back to the null space; does nothing before `bind`."""
        # To restore a sharded optimizer PyTorch takes an empty step before the fit begins
        if self._is_bound:
            for each in self.factors:
                each.project_step(sites)
