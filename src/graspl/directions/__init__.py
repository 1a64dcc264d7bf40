"""Directions that an adapter leans on: finding, keeping and reading them.

This room may import `graspl.adapters` and below. Start reading in `basis.py`.
"""

from graspl.directions.basis import Directions, SiteDirections
from graspl.directions.from_weights import Identification, RandomDirections, TopSingular
from graspl.directions.identify import identify_adapter

__all__ = [
    "Directions",
    "Identification",
    "RandomDirections",
    "SiteDirections",
    "TopSingular",
    "identify_adapter",
]
