"""Identification from the weights of a naive fine-tune alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from graspl.adapters.sites import Site
from graspl.adapters.spectrum import thin_svd
from graspl.directions.basis import Directions, SiteDirections
from graspl.errors import GrasplError


class Identification(ABC):
    """A way to find the directions that an adapter leans on."""

    @abstractmethod
    def __call__(self, sites: Sequence[Site]) -> Directions:
        """Return directions of every site.

        Args:
            sites: of a trained adapter.
        """


@dataclass
class TopSingular(Identification):
    """The top-k singular vectors of each site's update.

    Source:
        Claim 1 of arXiv:2605.27676 says that the factor can be identified from the weights of a naive LoRA;
        that the direction is each site's own top singular vector is our reading.
    """

    k: int = 1
    """Directions a site; 1, since a second one did not help in trial runs."""

    def __call__(self, sites: Sequence[Site]) -> Directions:
        """Return the top-k left and right singular vectors of every site.

        Args:
            sites: of a trained adapter.

        Raises:
            GrasplError: k exceeds a site's rank, or an update is zero.
        """
        if self.k < 1:
            raise GrasplError(f"method.k: {self.k} is below 1; give how many directions to take a site")
        found = {}
        for site in sites:
            U, S, V = thin_svd(site.B.detach(), site.A.detach(), site.scaling, site=site.name)
            if len(S) < self.k:
                raise GrasplError(
                    f"{site.name}: has rank {len(S)}, so k = {self.k} directions cannot be taken"
                )
            if S[0] == 0:
                raise GrasplError(f"{site.name}: the update is zero; identify from a trained adapter")
            found[site.name] = SiteDirections(U[:, : self.k], S, V[:, : self.k])
        return Directions(found, {"identification": type(self).__name__, "k": str(self.k)})
