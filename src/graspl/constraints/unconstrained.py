"""No constraint: for methods that use directions in another way."""

from collections.abc import Sequence
from dataclasses import dataclass

from graspl.adapters.sites import Site
from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions


@dataclass
class Unconstrained(Constraint):
    """Holds nothing: training is naive."""

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take nothing."""

    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Leave them alone."""

    def project_step(self, sites: Sequence[Site]) -> None:
        """Leave the factors alone."""
