"""The memory that a fit needs for certain, from a model's configuration alone.

This room may import `graspl.adapters` and below. Start reading in `memory.py`.
"""

from graspl.planning.memory import Footprint, Layout, footprint, sent_bytes
from graspl.planning.shape import ModelShape, Parameter, model_shape

__all__ = ["Footprint", "Layout", "ModelShape", "Parameter", "footprint", "model_shape", "sent_bytes"]
