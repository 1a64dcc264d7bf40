"""The two kinds of constraint: on LoRA factors, and on the residual stream."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from graspl.adapters.sharding import whole
from graspl.adapters.sites import Site
from graspl.constraints.sharded import Rider, along, project_together
from graspl.directions.basis import Directions
from graspl.errors import GrasplError

Forward = Callable[[dict[str, Any]], Any]  # Runs a model on a batch

# Far above rounding (a bfloat16 factor keeps about three digits), far below what training without a constraint makes
START_TOLERANCE = 1e-2


class HeldFactor(NamedTuple):
    """A factor and what it must not have: D^T B = 0 (`B`) or A D = 0 (`A`)."""

    site: int  # Its place among the sites
    factor: Literal["A", "B"]  # Which factor
    D: Tensor  # (out, k) or (in, k) orthonormal columns


class FactorConstraint(ABC):
    """Holds a quantity h of the LoRA factors at zero while the rest of the update is free.

    What is held here is linear in one factor: D^T B = 0, so that D^T dW = s (D^T B) A = 0 for any A, or A D = 0, so that
    dW D = s B (A D) = 0 for any B. Projecting after every step restores it under any optimizer, so it is exact.

    One that is not linear overrides `bind` and the two projections (`PairConstraint`). CONTRIBUTING.md says how to add one.

    Source:
        Eq. 8-10 of arXiv:2605.27676 with J_h acting on one factor, one of several readings; the exact step is own, since
        Adam leaves the null space of a projected gradient, as Adam-NSCL found.
    """

    k: int | None = 1
    """Directions a site or layer; None holds all that there are."""

    @abstractmethod
    def held_factors(self, sites: Sequence[Site], directions: Directions) -> list[HeldFactor]:
        """Return what is held of these sites along their directions, or their layers'; others' are refused."""

    @property
    def factors(self) -> set[str]:
        """Which factors `project_step` changes, of `A` and `B`; two constraints on the same one would undo each other."""
        return {"B"}

    @torch.no_grad()
    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the bases for these sites and bring the factors to where h = 0; dW must have no h yet.

        Args:
            sites: live factors of an adapter that has not been trained (B = 0), or was trained under this constraint.
            directions: of the same sites, or of their layers.

        Raises:
            GrasplError: the directions do not fit the sites, or the adapter already relies on them.
        """
        self._held = self.held_factors(sites, directions)
        written = [(sites[each.site], each.D) for each in self._held if each.factor == "B"]
        for (site, _), h in zip(written, along([(site.B, D) for site, D in written]), strict=True):
            require_zero_reliance(site, h, site.B.norm())
        read = [(sites[each.site], each.D) for each in self._held if each.factor == "A"]
        for site, D in read:
            B, A = whole(site.B).to(D.dtype), whole(site.A).to(D.dtype)
            require_zero_reliance(site, B @ (A @ whole(D)), B.norm() * A.norm())
        # A is random at the start; dW is still zero, so the model does not change
        project_together([(site.A.mT, D) for site, D in read])

    @torch.no_grad()
    def project_gradients(self, sites: Sequence[Site], rider: Rider | None = None) -> None:
        """Remove from the gradients what would change h: G_B <- G_B - D (D^T G_B), G_A <- G_A - (G_A D) D^T.

        Args:
            sites: as bound; their `.grad` is changed in place.
            rider: numbers that travel with the projection's sum over processes, if it sends one.
        """
        grads = [(getattr(sites[each.site], each.factor).grad, each) for each in self._held]
        project_together([(_turned(g, each), each.D) for g, each in grads if g is not None], rider)

    @torch.no_grad()
    def project_step(self, sites: Sequence[Site]) -> None:
        """Bring the factors back to h = 0, after the optimizer has moved them: B <- B - D (D^T B), A <- A - (A D) D^T."""
        factors = [(getattr(sites[each.site], each.factor), each) for each in self._held]
        project_together([(_turned(factor, each), each.D) for factor, each in factors])


def _turned(factor: Tensor, held: HeldFactor) -> Tensor:
    """Return a factor with the dimension that D acts on first."""
    return factor if held.factor == "B" else factor.mT


class StreamConstraint(ABC):
    """Holds a quantity of the residual stream; it acts in forward and backward passes, not on factors."""

    k: int | None = None
    """Directions a layer; None holds all that every layer has."""

    @abstractmethod
    def attach(self, layers: Mapping[str, nn.Module], directions: Directions) -> None:
        """Act on the streams after these layers, by name from first to last; directions of others are refused."""

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


Constraint = FactorConstraint | StreamConstraint  # Either kind


def require_zero_reliance(site: Site, h: Tensor, size: Tensor) -> None:
    """Check that h, of any shape, is zero up to rounding, so that training may start or go on.

    `size` () is the norm that h would have if the whole factor lay along the directions; it may be of shards.
    """
    if h.norm() > START_TOLERANCE * whole(size):
        fix = "start a new one with init_lora_weights: true (PiSSA, OLoRA and LoftQ start along them)"
        raise GrasplError(f"{site.name}: the adapter relies on the directions before the first step; {fix}")
