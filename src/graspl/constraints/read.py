"""The read constraint: nothing new is read along D."""

from collections.abc import Sequence
from dataclasses import dataclass

from graspl.adapters.sites import Site
from graspl.constraints.base import FactorConstraint, HeldFactor
from graspl.directions.basis import Directions


@dataclass
class ReadConstraint(FactorConstraint):
    """h = dW D = 0 with D the site's right directions, (in, k): A D = 0.

    A is random at the start, so it is projected once when bound.

    Source:
        Eq. 8-10 of arXiv:2605.27676 with J_h acting on the columns of A, one of several readings.
    """

    k: int | None = 1
    """Directions a site; None holds all that there are."""

    @property
    def factors(self) -> set[str]:
        """A alone."""
        return {"A"}

    def held_factors(self, sites: Sequence[Site], directions: Directions) -> list[HeldFactor]:
        """Return A of every site."""
        bases = directions.bases(sites, side="V", k=self.k)
        return [HeldFactor(number, "A", D) for number, D in enumerate(bases)]
