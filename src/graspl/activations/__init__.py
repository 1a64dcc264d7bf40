"""What a model computes on text: directions that weights alone do not show.

This room may import `graspl.directions`, `graspl.data` and below. Start reading in `streams.py`.
"""

from graspl.activations.assumptions import AssumptionReport, check_assumptions
from graspl.activations.contrast import PersonaContrast
from graspl.activations.inputs import InputSubspace
from graspl.activations.natural import NaturalDirections
from graspl.activations.principal import PrincipalDirections
from graspl.activations.sae import SAEDiffing
from graspl.activations.sae_files import SparseAutoencoder, read_sae
from graspl.activations.shift import MeanShift

__all__ = [
    "AssumptionReport", "InputSubspace", "MeanShift", "NaturalDirections", "PersonaContrast",
    "PrincipalDirections", "SAEDiffing", "SparseAutoencoder", "check_assumptions", "read_sae",
]  # fmt: skip
