"""LightningModules, one a way to fine-tune.

This room may import `graspl.constraints`, `graspl.evaluation` and below. Start reading in `lora.py`.
"""

from graspl.methods.grasp import GRASPLitModule
from graspl.methods.lora import LoRALitModule
from graspl.methods.subtraction import SubtractionLitModule

__all__ = ["GRASPLitModule", "LoRALitModule", "SubtractionLitModule"]
