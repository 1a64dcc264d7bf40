"""Null-space constraints on LoRA factors: pure tensor maths, no Lightning.

This room may import `graspl.directions` and below. Start reading in `projection.py`.
"""

from graspl.constraints.projection import project_onto_complement

__all__ = ["project_onto_complement"]
