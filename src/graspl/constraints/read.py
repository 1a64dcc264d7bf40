"""The read constraint: nothing new is read along D."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graspl.adapters.sharding import whole
from graspl.adapters.sites import Site
from graspl.constraints.base import FactorConstraint, require_zero_reliance
from graspl.constraints.sharded import Rider, project_together
from graspl.directions.basis import Directions


@dataclass
class ReadConstraint(FactorConstraint):
    """h = dW D = 0 with D the site's right directions, (in, k).

    Since dW = s B A, A D = 0 gives h = 0 whatever B is. A is random at the start, so it is projected once
    when bound (dW is still zero then, so the model does not change) and at every step after: exact under any
    optimizer.

    Source:
        Eq. 8-10 of arXiv:2605.27676 with J_h acting on the columns of A, one of several readings; the exact
        step is own.
    """

    k: int | None = 1
    """Directions a site; None holds all that there are."""

    def __post_init__(self) -> None:
        self._bases: list[Tensor] = []

    @property
    def factors(self) -> set[str]:
        """A alone."""
        return {"A"}

    @torch.no_grad()
    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the right directions and project A; dW must be zero or read nothing along them."""
        self._bases = directions.bases(sites, side="V", k=self.k)
        for site, D in zip(sites, self._bases, strict=True):
            B, A = whole(site.B).to(D.dtype), whole(site.A).to(D.dtype)
            require_zero_reliance(site, B @ (A @ whole(D)), B.norm() * A.norm())
        self.project_step(sites)

    @torch.no_grad()
    def project_gradients(self, sites: Sequence[Site], rider: Rider | None = None) -> None:
        """G_A <- G_A - (G_A D) D^T."""
        pairs = zip(sites, self._bases, strict=True)
        project_together([(site.A.grad.mT, D) for site, D in pairs if site.A.grad is not None], rider)

    @torch.no_grad()
    def project_step(self, sites: Sequence[Site]) -> None:
        """A <- A - (A D) D^T."""
        project_together([(site.A.mT, D) for site, D in zip(sites, self._bases, strict=True)])
