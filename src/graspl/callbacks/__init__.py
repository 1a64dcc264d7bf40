"""What a fit or a validation writes, and how a fit is interrupted.

This room may import `graspl.methods` and below. Start reading in `artifacts.py`.
"""

from graspl.callbacks.answers import JudgeAnswers
from graspl.callbacks.artifacts import SaveAdapter, SaveDirections, WholeCheckpoints
from graspl.callbacks.checkpoints import SaveCheckpoints
from graspl.callbacks.console import ConsoleProgress, ShortSummary
from graspl.callbacks.cost import MeasureCost
from graspl.callbacks.evaluation import SaveEvaluation, SaveGenerations
from graspl.callbacks.interrupt import SaveOnInterrupt
from graspl.callbacks.log import RowsLogger
from graspl.callbacks.trackers import TrackioLogger

__all__ = [
    "ConsoleProgress", "JudgeAnswers", "MeasureCost", "RowsLogger", "SaveAdapter", "SaveCheckpoints", "SaveDirections",
    "SaveEvaluation", "SaveGenerations", "SaveOnInterrupt", "ShortSummary", "TrackioLogger", "WholeCheckpoints",
]  # fmt: skip
