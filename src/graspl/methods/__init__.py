"""The two LightningModules: LoRA with parts, and GRASP, which adds a projection.

This room may import every kind of part and below. Start reading in `lora.py` (the training step), then `grasp.py`.
"""

from graspl.methods.directions import DirectionSource, ThrowAwayFit
from graspl.methods.grasp import GRASPLitModule
from graspl.methods.lora import LoRALitModule

__all__ = ["DirectionSource", "GRASPLitModule", "LoRALitModule", "ThrowAwayFit"]
