"""What the base model computes on prompts: directions that weights alone do not show.

This room may import `graspl.directions`, `graspl.data` and below. Start reading in `inputs.py`.
"""

from graspl.activations.inputs import InputSubspace

__all__ = ["InputSubspace"]
