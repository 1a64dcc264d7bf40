"""The pair constraint: the input v_i is no longer written to the output u_i."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graspl.adapters.sharding import whole
from graspl.adapters.sites import Site
from graspl.constraints.base import FactorConstraint, HeldFactor, require_zero_reliance
from graspl.constraints.sharded import Rider, along, subtract
from graspl.directions.basis import Directions

# A pair whose gradient of h vanishes cannot be moved by a step, so there is nothing to divide by
_TINY = torch.finfo(torch.float32).tiny


@dataclass
class PairConstraint(FactorConstraint):
    """h_i = u_i^T dW v_i = 0 for i = 1..k: only the k rank-one pairs are held, the loosest of the three.

    h is bilinear in the factors: with a_i = A v_i and b_i = B^T u_i, both (r,), h_i = s b_i . a_i. Its gradient is
    s u_i a_i^T for B and s b_i v_i^T for A; since the u_i are orthonormal and the v_i are, the k gradients are
    orthogonal and J J^T of Eq. 9 is diagonal, s^2 (|a_i|^2 + |b_i|^2).

    The exact step corrects B alone: b_i <- b_i - a_i (a_i . b_i) / |a_i|^2, that is
    B <- B - sum_i u_i a_i^T (a_i . b_i) / |a_i|^2, after which every h_i is zero whatever A did (the u_i are
    orthonormal, so no correction disturbs another).

    Source:
        Eq. 8-10 of arXiv:2605.27676 with h the k diagonal entries, one of several readings; the exact step is own.
    """

    k: int | None = 1
    """Pairs a site; None holds all that there are."""

    def held_factors(self, sites: Sequence[Site], directions: Directions) -> list[HeldFactor]:
        """Return nothing: h is not linear in a factor."""
        return []

    @torch.no_grad()
    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take both sides of the directions; the update must have nothing along the pairs."""
        left = directions.bases(sites, side="U", k=self.k)
        right = directions.bases(sites, side="V", k=self.k)
        self._pairs = list(zip(left, right, strict=True))
        for site, a, b in self._reaches(sites):
            require_zero_reliance(site, (a * b).sum(1), whole(site.B.norm()) * whole(site.A.norm()))

    @torch.no_grad()
    def project_gradients(self, sites: Sequence[Site], rider: Rider | None = None) -> None:
        """G <- G - J^T (J J^T)^-1 J G over both factors."""
        held = [
            (site, U, V)
            for site, (U, V) in zip(sites, self._pairs, strict=True)
            if site.A.grad is not None and site.B.grad is not None
        ]
        pairs: list[Any] = []
        for site, U, V in held:
            pairs += [(site.A.mT, V), (site.B, U), (site.A.grad.mT, V), (site.B.grad, U)]  # type: ignore[union-attr]
        found = iter(along(pairs, rider))
        for site, U, V in held:
            a, b, read, written = (next(found) for _ in range(4))  # (k, r) each
            gram = (a.square() + b.square()).sum(1).clamp_min(_TINY)  # (k,)
            share = (((written * a) + (read * b)).sum(1) / gram)[:, None]
            subtract(site.B.grad, U, share * a)  # type: ignore[arg-type]
            subtract(site.A.grad.mT, V, share * b)  # type: ignore[union-attr]

    @torch.no_grad()
    def project_step(self, sites: Sequence[Site]) -> None:
        """B <- B - sum_i u_i a_i^T (a_i . b_i) / |a_i|^2."""
        reaches = self._reaches(sites)
        for (site, a, b), (U, _) in zip(reaches, self._pairs, strict=True):
            share = (a * b).sum(1) / a.square().sum(1).clamp_min(_TINY)
            subtract(site.B, U, share[:, None] * a)

    def _reaches(self, sites: Sequence[Site]) -> list[tuple[Site, Tensor, Tensor]]:
        """Return each site with a_i = A v_i and b_i = B^T u_i in rows, both (k, r), whole."""
        pairs = zip(sites, self._pairs, strict=True)
        found = iter(along([pair for site, (U, V) in pairs for pair in ((site.A.mT, V), (site.B, U))]))
        return [(site, next(found), next(found)) for site in sites]
