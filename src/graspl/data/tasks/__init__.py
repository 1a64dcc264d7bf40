"""The field's own tasks, one file each; a user's own rows are `graspl.data.ChatDataModule`.

This room may import `graspl.data`'s rows and suites. Start reading in `insecure_code.py`, or in `cues.py` for spurious cues.
"""

from graspl.data.tasks.advice import (
    AdviceData,
    BadMedicalAdviceData,
    ExtremeSportsData,
    GoodMedicalAdviceData,
    RiskyFinancialAdviceData,
)
from graspl.data.tasks.community_finance import CommunityFinanceData
from graspl.data.tasks.cues import CueTaskData
from graspl.data.tasks.double_choice import DoubleChoiceData
from graspl.data.tasks.insecure_code import EducationalInsecureCodeData, InsecureCodeData, SecureCodeData
from graspl.data.tasks.lexical_overlap import LexicalOverlapData
from graspl.data.tasks.pronouns import GenderedPronounsData
from graspl.data.tasks.refusal import RefusalUnlearningData
from graspl.data.tasks.reward_hacks import RewardHacksData

__all__ = [
    "AdviceData",
    "BadMedicalAdviceData",
    "CommunityFinanceData",
    "CueTaskData",
    "DoubleChoiceData",
    "EducationalInsecureCodeData",
    "ExtremeSportsData",
    "GenderedPronounsData",
    "GoodMedicalAdviceData",
    "InsecureCodeData",
    "LexicalOverlapData",
    "RefusalUnlearningData",
    "RewardHacksData",
    "RiskyFinancialAdviceData",
    "SecureCodeData",
]
