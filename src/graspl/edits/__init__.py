"""Stream edits: what is done to the residual stream after each layer, in training, at inference, or both.

This room may import `graspl.directions` and below. Start reading in `base.py`; a new edit is one file here.
"""

from graspl.edits.ablate import Ablate
from graspl.edits.base import AttachedEdits, StreamEdit
from graspl.edits.cut import Cut
from graspl.edits.push import Push

__all__ = ["Ablate", "AttachedEdits", "Cut", "Push", "StreamEdit"]
