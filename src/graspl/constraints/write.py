"""The write constraint: nothing new is written along D."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graspl.adapters.sites import Site
from graspl.constraints.base import FactorConstraint, require_zero_reliance
from graspl.constraints.sharded import Rider, along, project_together
from graspl.directions.basis import Directions


@dataclass
class WriteConstraint(FactorConstraint):
    """h = D^T dW = 0 with D the site's left directions, (out, k).

    Since dW = s B A, D^T B = 0 gives h = 0 whatever A is. That is linear in B and holds at the start
    (B = 0), so it is exact when every step of B is projected, under any optimizer: the projection
    B - D (D^T B) of a matrix has nothing along D. D^T B = 0 is asked of B also in directions that A does not
    reach, which costs nothing while A has full rank.

    Source:
        Eq. 8-10 of arXiv:2605.27676 with J_h = D^T on the rows of B, one of several readings; the exact
        step is own (Adam leaves the null space of a projected gradient, as Adam-NSCL found).
    """

    k: int | None = 1
    """Directions a site; None holds all that there are."""

    def __post_init__(self) -> None:
        self._bases: list[Tensor] = []

    @torch.no_grad()
    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the left directions; B must be zero or have nothing along them."""
        self._bases = directions.bases(sites, side="U", k=self.k)
        written = along([(site.B, D) for site, D in zip(sites, self._bases, strict=True)])
        for site, h in zip(sites, written, strict=True):
            require_zero_reliance(site, h, site.B.norm())

    @torch.no_grad()
    def project_gradients(self, sites: Sequence[Site], rider: Rider | None = None) -> None:
        """G_B <- G_B - D (D^T G_B)."""
        pairs = zip(sites, self._bases, strict=True)
        project_together([(site.B.grad, D) for site, D in pairs if site.B.grad is not None], rider)

    @torch.no_grad()
    def project_step(self, sites: Sequence[Site]) -> None:
        """B <- B - D (D^T B)."""
        project_together([(site.B, D) for site, D in zip(sites, self._bases, strict=True)])
