"""Identification by intersection: what several naive fits have in common."""

from dataclasses import dataclass

import torch
from torch import Tensor

from graspl.adapters.files import AdapterFolder, read_adapter
from graspl.directions.basis import FILTERS, Directions
from graspl.directions.file import LayerDirections, SiteDirections
from graspl.directions.from_weights import TopSingular
from graspl.directions.identify import Identification, leading
from graspl.errors import GrasplError


@dataclass
class AcrossAdapters(Identification):
    """The k directions that several adapters share: adapters of other seeds, or an early and a late checkpoint.

    With P_j the projector on the directions of adapter j, the top eigenvectors of mean_j P_j are kept. An eigenvalue of 1
    is a direction that all have. V means something only where the adapters began with the same A.

    Source:
        Own. Left singular vectors are stable over seeds and right ones are not (docs/method.md).
    """

    others: list[str]
    """Adapter folders, besides the one given first."""
    k: int = 1
    """Directions kept, a site or a layer."""
    method: TopSingular | Identification | None = None
    """Finds each adapter's directions; give it more than k. None takes TopSingular(k=4)."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Intersect; S holds the eigenvalues of the mean projector."""
        if not self.others:
            raise GrasplError("method.others: names no adapter; give at least one besides the first")
        method = self.method or TopSingular(k=4)
        every = [method(each) for each in (adapter, *map(read_adapter, self.others))]
        first = every[0]
        for name, one in zip(self.others, every[1:], strict=True):
            if set(one.sites) != set(first.sites) or set(one.layers) != set(first.layers):
                raise GrasplError(f"method.others: {name} has other sites; give adapters of one kind")
        sites = {}
        for site in first.sites:
            U, S = self._shared([one.sites[site].U for one in every], site)
            V, _ = self._shared([one.sites[site].V for one in every], site)
            sites[site] = SiteDirections(U, S, V)
        layers = {
            layer: LayerDirections(*self._shared([one.layers[layer].D for one in every], layer))
            for layer in first.layers
        }
        # Shared directions are of the same kind, but have no sign
        return Directions(sites, {"adapters": str(len(every)), FILTERS: first.metadata[FILTERS]}, layers)

    def _shared(self, bases: list[Tensor], where: str) -> tuple[Tensor, Tensor]:
        if len({basis.shape[0] for basis in bases}) > 1:
            raise GrasplError(f"method.others: {where} differs in width; give adapters of one model")
        # The left singular vectors of the stacked bases are the eigenvectors of the sum of the projectors
        U, S, _ = torch.linalg.svd(torch.cat(bases, dim=1), full_matrices=False)
        return U[:, leading(U.shape[1], f"{where} of the adapters", k=self.k)], S.square() / len(bases)
