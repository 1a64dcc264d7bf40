"""Identification from the weights of a naive fit only."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.adapters import AdapterFolder, Site, ThinSVD, thin_svd
from graspl.directions.basis import Directions
from graspl.directions.file import SiteDirections
from graspl.directions.identify import Identification, leading
from graspl.errors import GrasplError


@dataclass
class TopSingular(Identification):
    """The top-k singular vectors of each site's update.

    Source:
        Claim 1 of arXiv:2605.27676; that the direction is each site's own top singular vector is our reading.
    """

    k: int = 1
    """Directions a site; 1, since a second one did not help in trial runs."""

    skip: int = 0
    """Leading pairs to leave out: 1 takes the second direction, a control that a claim must beat."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Return the first k left and right singular vectors of every site."""
        found = {}
        for site in adapter.sites:
            U, S, V = trained_svd(site)
            taken = leading(len(S), site.name, k=self.k, skip=self.skip)
            # Copies: a view would keep all of U and V, as much as the adapter itself
            found[site.name] = SiteDirections(U[:, taken].clone(), S, V[:, taken].clone())
        return Directions(found, {"skip": str(self.skip)})


@dataclass
class RandomDirections(Identification):
    """Random orthonormal directions at every site: a control that every claim must beat."""

    k: int = 1
    """Directions a site."""
    seed: int = 0
    """Of the random numbers."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Return random directions with the adapter's spectra."""
        generator = torch.Generator().manual_seed(self.seed)
        found = {}
        for site in adapter.sites:
            leading(min(site.shape), site.name, k=self.k)
            spectrum = thin_svd(site.B, site.A, site.scaling, site=site.name).S
            U, V = (random_basis(size, self.k, generator) for size in site.shape)
            found[site.name] = SiteDirections(U, spectrum, V)
        return Directions(found, {"seed": str(self.seed)})


def random_basis(size: int, k: int, generator: torch.Generator) -> Float[Tensor, "size k"]:
    """Return k random orthonormal directions, (size, k), on the CPU."""
    return torch.linalg.qr(torch.randn(size, k, generator=generator))[0]


def trained_svd(site: Site) -> ThinSVD:
    """Return the decomposition of a site's update; an update of zero is an error."""
    parts = thin_svd(site.B.detach(), site.A.detach(), site.scaling, site=site.name)
    if parts.S[0] == 0:
        raise GrasplError(f"{site.name}: the update is zero; identify from a trained adapter")
    return parts
