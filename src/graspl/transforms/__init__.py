"""Transforms: what is done to the finished factors, before they are validated or saved; training never sees it.

This room may import `graspl.host`, `graspl.constraints` and below. Start reading in `base.py`; a new transform is one file.
"""

from graspl.transforms.base import Transform
from graspl.transforms.safe_lora import SafeLoRA
from graspl.transforms.scale import Balance, Scale
from graspl.transforms.subtract import Subtract
from graspl.transforms.truncate import Truncate

__all__ = ["Balance", "SafeLoRA", "Scale", "Subtract", "Transform", "Truncate"]
