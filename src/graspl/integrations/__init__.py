"""GRASP inside other people's training: a callback for Transformers and TRL, three lines for any PyTorch loop.

This room may import `graspl.constraints`, `graspl.evaluation` and below. Start reading in `held.py`.
"""

from graspl.integrations.callback import GRASPCallback
from graspl.integrations.held import HeldAdapter

__all__ = ["GRASPCallback", "HeldAdapter"]
