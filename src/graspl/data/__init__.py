"""Rows, tokens, batches and the LightningDataModules that serve them.

This room may import `graspl.adapters` and below. Start reading in `task.py`; `tasks/` holds the field's tasks, `suites/` what
they are evaluated on.
"""

from graspl.data.chat import ChatDataModule
from graspl.data.choices import CHOICE_KINDS, AnswerPair, ChoiceCollator, ChoiceItem, ScaleItem
from graspl.data.mixing import InterleaveByPerplexity, MixIn
from graspl.data.operators import RowOperator, Subsample, SystemPrompt
from graspl.data.questions import Question
from graspl.data.rows import Conversation, Message, read_conversations, read_prompts
from graspl.data.suites import EvaluationSuite
from graspl.data.suites_only import SuitesDataModule
from graspl.data.tables import read_table
from graspl.data.task import TaskDataModule
from graspl.data.tokens import TokenizedConversation, tokenize

__all__ = [
    "CHOICE_KINDS", "AnswerPair", "ChatDataModule", "ChoiceCollator", "ChoiceItem", "Conversation", "EvaluationSuite",
    "InterleaveByPerplexity", "Message", "MixIn", "Question", "RowOperator", "ScaleItem", "Subsample",
    "SuitesDataModule", "SystemPrompt", "TaskDataModule", "TokenizedConversation",
    "read_conversations", "read_prompts", "read_table", "tokenize",
]  # fmt: skip
