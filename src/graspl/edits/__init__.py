"""Edits: what is done to the residual stream after each layer, or to what sites put out.

This room may import `graspl.directions` and below. Start reading in `base.py`; a new edit is one file here.
"""

from graspl.edits.ablate import Ablate
from graspl.edits.base import AttachedEdits, SiteEdit, StreamEdit
from graspl.edits.cut import Cut
from graspl.edits.inoculate import Inoculate
from graspl.edits.push import Push

__all__ = ["Ablate", "AttachedEdits", "Cut", "Inoculate", "Push", "SiteEdit", "StreamEdit"]
