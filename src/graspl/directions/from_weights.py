"""Identification from the weights of a naive fine-tune alone."""

from dataclasses import dataclass

import torch

from graspl.adapters.files import AdapterFolder
from graspl.adapters.spectrum import thin_svd
from graspl.directions.basis import Directions, SiteDirections
from graspl.directions.identify import Identification
from graspl.errors import GrasplError


@dataclass
class TopSingular(Identification):
    """The top-k singular vectors of each site's update.

    Source:
        Claim 1 of arXiv:2605.27676 says that the factor can be identified from the weights of a naive LoRA;
        that the direction is each site's own top singular vector is our reading.
    """

    k: int = 1
    """Directions a site; 1, since a second one did not help in trial runs."""

    skip: int = 0
    """Leading pairs to leave out: 1 takes the second direction, a control that a claim must beat."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Return the top-k left and right singular vectors of every site.

        Args:
            adapter: a trained adapter.

        Raises:
            GrasplError: k exceeds a site's rank, or an update is zero.
        """
        if self.k < 1 or self.skip < 0:
            raise GrasplError(
                f"method: k = {self.k} and skip = {self.skip}; give k of at least 1 and skip of at least 0"
            )
        found = {}
        last = self.skip + self.k
        for site in adapter.sites:
            U, S, V = thin_svd(site.B.detach(), site.A.detach(), site.scaling, site=site.name)
            if len(S) < last:
                raise GrasplError(
                    f"{site.name}: has rank {len(S)}, so directions up to number {last} cannot be taken"
                )
            if S[0] == 0:
                raise GrasplError(f"{site.name}: the update is zero; identify from a trained adapter")
            # Copies: a view would keep all of U and V, as much as the adapter itself
            found[site.name] = SiteDirections(
                U[:, self.skip : last].clone(), S, V[:, self.skip : last].clone()
            )
        return Directions(found, {"skip": str(self.skip)})


@dataclass
class RandomDirections(Identification):
    """Random orthonormal directions at every site: a control that every claim must beat."""

    k: int = 1
    """Directions a site."""
    seed: int = 0
    """Of the directions."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Return random directions with the adapter's spectra.

        Args:
            adapter: gives sites and shapes.

        Raises:
            GrasplError: k is more than a site is wide.
        """
        generator = torch.Generator().manual_seed(self.seed)
        found = {}
        for site in adapter.sites:
            if not 1 <= self.k <= min(site.shape):
                raise GrasplError(f"method.k: {self.k} directions do not fit into {site.name}, {site.shape}")
            spectrum = thin_svd(site.B, site.A, site.scaling, site=site.name).S
            U, V = (torch.linalg.qr(torch.randn(size, self.k, generator=generator))[0] for size in site.shape)
            found[site.name] = SiteDirections(U, spectrum, V)
        return Directions(found, {"seed": str(self.seed)})
