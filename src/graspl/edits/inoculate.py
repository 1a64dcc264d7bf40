"""An inoculation adapter: what is there already need not be learnt."""

from dataclasses import dataclass

from torch import Tensor

from graspl.directions.file import SiteDirections
from graspl.edits.base import SiteEdit


@dataclass
class Inoculate(SiteEdit):
    """Adds the leading part of the naive update, U S V^T of each site, while the adapter trains; afterwards it is dropped.

    The directions must come from the naive fit's weights (`graspl.directions.TopSingular`): their S are the update's.

    Source:
        Inoculation adapters, arXiv:2606.30252, from its summary, which train theirs on data with the trait; taking the naive
        fit's own leading part, which needs no such data, is own.
    """

    k: int | None = 1
    """Singular directions a site."""
    strength: float = 1.0
    """Times the singular values."""

    def added(self, x: Tensor, directions: SiteDirections) -> Tensor:
        """Return U S V^T x, times the strength."""
        U, S, V = directions
        return self.strength * ((x @ V) * S) @ U.mT
