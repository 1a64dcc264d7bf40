"""`graspl`: the front door. It imports nothing heavy, so that help is there at once."""

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any

from graspl import __version__
from graspl.errors import GrasplError, users_mistake

TRAINING = {
    "fit": "fine-tune a model: a naive fit, or a GRASP fit that blocks unwanted directions",
    "validate": "measure adherence, spill-over, coherence, divergence and reliance",
}
TOOLS = {
    "data": "show what a fit would train on: lengths, what is left out, the trained tokens",
