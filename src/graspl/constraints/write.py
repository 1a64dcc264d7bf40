"""The write constraint: nothing new is written along D."""

from collections.abc import Sequence
from dataclasses import dataclass

from graspl.adapters.sites import Site
from graspl.constraints.base import FactorConstraint, HeldFactor
from graspl.directions.basis import Directions


@dataclass
class WriteConstraint(FactorConstraint):
    """h = D^T dW = 0 with D the site's left directions, (out, k): D^T B = 0.

    It is asked of B also in directions that A does not reach, which costs nothing while A has full rank.

    Source:
        Eq. 8-10 of arXiv:2605.27676 with J_h = D^T on the rows of B, one of several readings.
    """

    k: int | None = 1
    """Directions a site; None holds all that there are."""

    def held_factors(self, sites: Sequence[Site], directions: Directions) -> list[HeldFactor]:
        """Return B of every site."""
        bases = directions.bases(sites, side="U", k=self.k)
        return [HeldFactor(number, "B", D) for number, D in enumerate(bases)]
