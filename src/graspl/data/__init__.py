"""Rows, tokens, batches and the LightningDataModules that serve them.

This room may import `graspl.adapters` and below. Start reading in `task.py`.
"""

from graspl.data.chat import ChatDataModule
from graspl.data.choices import CHOICE_KINDS, ChoiceItem, collate_choices
from graspl.data.insecure_code import InsecureCodeData
from graspl.data.operators import MixIn, RowOperator, Subsample, SystemPrompt
from graspl.data.rows import Conversation, Message, read_conversations, read_prompts
from graspl.data.task import TaskDataModule
from graspl.data.tokens import TokenizedConversation, tokenize

__all__ = [
    "CHOICE_KINDS",
    "ChatDataModule",
    "ChoiceItem",
    "Conversation",
    "InsecureCodeData",
    "Message",
    "MixIn",
    "RowOperator",
    "Subsample",
    "SystemPrompt",
    "TaskDataModule",
    "TokenizedConversation",
    "collate_choices",
    "read_conversations",
    "read_prompts",
    "tokenize",
]
