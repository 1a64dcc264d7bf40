"""Directions that an adapter leans on: finding, keeping and reading them.

This room may import `graspl.adapters` and below. Start reading in `basis.py`.
"""

from graspl.directions.across import AcrossAdapters
from graspl.directions.basis import Directions
from graspl.directions.dimension import chosen_k, dimension, effective_rank
from graspl.directions.file import LayerDirections, SiteDirections, read_metadata
from graspl.directions.from_layers import (
    LayerConsensus,
    LayerSingular,
    RandomLayerDirections,
    residual_spectra,
    writers_agree,
)
from graspl.directions.from_weights import RandomDirections, TopSingular
from graspl.directions.identify import Identification, identify_adapter
from graspl.directions.reliance import reliance

__all__ = [
    "AcrossAdapters", "Directions", "Identification", "LayerConsensus", "LayerDirections", "LayerSingular",
    "RandomDirections", "RandomLayerDirections", "SiteDirections", "TopSingular", "chosen_k", "dimension",
    "effective_rank", "identify_adapter", "read_metadata", "reliance", "residual_spectra", "writers_agree",
]  # fmt: skip
