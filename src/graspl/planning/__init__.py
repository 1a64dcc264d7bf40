"""What a fit will need before anybody runs it: memory a device, communication and time a step, from a model's config alone.

This room may import `graspl.methods` and below. Start reading in `choices.py`.
"""

from graspl.planning.choices import Choice, Machine, choices
from graspl.planning.live import LiveBytes
from graspl.planning.memory import Footprint, Layout, footprint
from graspl.planning.shape import ModelShape, StepCost, model_shape, step_cost

__all__ = [
    "Choice",
    "Footprint",
    "Layout",
    "LiveBytes",
    "Machine",
    "ModelShape",
    "StepCost",
    "choices",
    "footprint",
    "model_shape",
    "step_cost",
]
