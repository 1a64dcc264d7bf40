"""Starts: how the factors A and B of a new adapter begin, and whether A is trained.

This room may import `graspl.host` and below. Start reading in `base.py`; a new start is one file here.
"""

from graspl.starts.base import Start
from graspl.starts.directions import DirectionsStart
from graspl.starts.null_space import NullSpaceStart
from graspl.starts.plain import FrozenStart, PlainStart

__all__ = ["DirectionsStart", "FrozenStart", "NullSpaceStart", "PlainStart", "Start"]
