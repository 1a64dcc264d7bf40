"""Several constraints at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graspl.adapters.sites import Site
from graspl.constraints.activation import ActivationConstraint
from graspl.constraints.answers import Forward
from graspl.constraints.base import Constraint
from graspl.constraints.residual import ResidualConstraint
from graspl.directions.basis import Directions


@dataclass
class CombinedConstraint(Constraint):
    """Holds what each of its parts holds, e.g. a write constraint and a read constraint with other directions.

    Write acts on B alone and read on A alone, so one of each are exact together, in either order. A pair constraint
    after a write constraint with the same directions has nothing left to do. Parts that act on the same factor with
    different directions (write and residual) are each exact only for the last one: give them one file with both
    directions instead. An activation constraint acts on neither, so it goes with any other.
    """

    parts: list[Constraint]
    """The constraints, each with its own k and, if need be, its own directions file."""

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Bind every part."""
        for part in self.parts:
            part.bind(sites, directions)

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Attach every part."""
        for part in self.parts:
            part.attach(layers)

    def detach(self) -> None:
        """Detach every part."""
        for part in self.parts:
            part.detach()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend every part."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.suspended())
            yield

    @property
    def needs_batch(self) -> bool:
        """Whether any part needs it."""
        return any(part.needs_batch for part in self.parts)

    def observe(self, batch: dict[str, Any], step: int, forward: Forward, base_forward: Forward) -> None:
        """Show the batch to every part."""
        for part in self.parts:
            part.observe(batch, step, forward, base_forward)

    def penalty(self) -> Tensor | None:
        """Return the sum of the parts' penalties."""
        found = [each for part in self.parts if (each := part.penalty()) is not None]
        return torch.stack(found).sum() if found else None

    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Project for every part, in their order."""
        for part in self.parts:
            part.project_gradients(sites)

    def project_step(self, sites: Sequence[Site]) -> None:
        """Project for every part, in their order."""
        for part in self.parts:
            part.project_step(sites)


def default_constraint() -> Constraint:
    """Return what served best on development organisms: six directions a layer, held and not written along."""
    return CombinedConstraint([ActivationConstraint(k=6, tolerance=0.04), ResidualConstraint(k=6)])


def widen(constraint: Constraint, directions: Directions) -> None:
    """Let a constraint hold all the directions that rounds have added up.

    Args:
        constraint: changed in place.
        directions: found by `directions_by_rounds`.
    """
    if int(directions.metadata.get("rounds", "1")) > 1:
        set_k(constraint, directions.width("D"))


def set_k(constraint: Any, k: int) -> None:
    """Let a constraint, or all parts of one, hold k directions."""
    for part in getattr(constraint, "parts", [constraint]):
        part.k = k
