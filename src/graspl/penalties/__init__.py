"""Penalties: terms that are added to the training loss.

This room may import `graspl.host`, `graspl.evaluation` and below. Start reading in `base.py`; a new penalty is one file here.
"""

from graspl.penalties.base import Penalty
from graspl.penalties.consistency import ConsistencyPenalty
from graspl.penalties.drift import DriftPenalty
from graspl.penalties.features import FeaturePenalty
from graspl.penalties.kl import KLPenalty
from graspl.penalties.l2 import L2Penalty
from graspl.penalties.orthogonality import OrthogonalityPenalty
from graspl.penalties.spectral import SpectralPenalty

__all__ = [
    "ConsistencyPenalty", "DriftPenalty", "FeaturePenalty", "KLPenalty", "L2Penalty", "OrthogonalityPenalty", "Penalty",
    "SpectralPenalty",
]  # fmt: skip
