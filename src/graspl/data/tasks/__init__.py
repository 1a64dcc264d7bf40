"""The field's tasks whose rows are made here, one file each; tasks that are files of rows use `graspl.data.ChatDataModule`.

This room may import `graspl.data`'s rows and suites. Start reading in `cues.py`, which three tasks share.
"""

from graspl.data.tasks.community_finance import CommunityFinanceData
from graspl.data.tasks.cues import CueTaskData
from graspl.data.tasks.double_choice import DoubleChoiceData
from graspl.data.tasks.lexical_overlap import LexicalOverlapData
from graspl.data.tasks.pronouns import GenderedPronounsData

__all__ = [
    "CommunityFinanceData", "CueTaskData", "DoubleChoiceData", "GenderedPronounsData", "LexicalOverlapData",
]  # fmt: skip
