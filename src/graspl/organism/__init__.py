"""The organism: a small language model with a known hidden factor, its world, pretraining and tasks.

This room may import `graspl.directions`, `graspl.data` and below. Start reading in `world.py`.
"""

from graspl.organism.pretrain import OrganismPretrainData, OrganismPretrainModule
from graspl.organism.sae import OrganismSAEModule
from graspl.organism.tasks import OrganismTaskData
from graspl.organism.truth import TrueDirections
from graspl.organism.world import World

__all__ = [
    "OrganismPretrainData", "OrganismPretrainModule", "OrganismSAEModule", "OrganismTaskData",
    "TrueDirections", "World",
]  # fmt: skip
