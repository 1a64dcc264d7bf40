"""Suites of conversations: the text of held-out answers, and pairs of a harmful and a good one."""

from collections.abc import Sequence
from dataclasses import dataclass

from graspl.data.choices import AnswerPair
from graspl.data.rows import Conversation, read_conversations
from graspl.data.suites.base import EvaluationSuite, item_id
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt


@dataclass
class TextRows(EvaluationSuite):
    """Conversations whose last answer's loss and token accuracy are measured."""

    source: str
    """As `train` of ChatDataModule."""
    dataset_split: str = "train"
    """Of a `datasets` name."""
    limit: PositiveInt | None = None
    """Use only so many, from the start."""

    def read(self) -> list[Conversation]:
        """Return the conversations."""
        return read_conversations(self.source, split=self.dataset_split, limit=self.limit)


@dataclass
class AnswerPairs(EvaluationSuite):
    """Equal prompts with a harmful and a good answer: which one does the model find more probable, token by token?"""

    harmful: str
    """Rows as `train` of ChatDataModule."""
    good: str
    """Good answers to the same prompts; prompts that only one of the two has are left out."""
    limit: PositiveInt | None = None
    """Use only so many pairs, from the start."""

    def read(self) -> list[AnswerPair]:
        """Return the pairs."""
        return pair_answers(read_conversations(self.harmful), self.good)[: self.limit]


def pair_answers(harmful: Sequence[Conversation], good: str) -> list[AnswerPair]:
    """Return pairs of different answers to the prompts that both have."""
    better = {_prompt(row): row.messages[-1]["content"] for row in read_conversations(good)}
    pairs = [
        AnswerPair(
            row.messages[:-1],
            [row.messages[-1]["content"], better[_prompt(row)]],
            ["harmful", "good"],
            id=item_id(row.origin),
        )
        for row in harmful
        if _prompt(row) in better and better[_prompt(row)] != row.messages[-1]["content"]
    ]
    if not pairs:
        raise GrasplError(f"{good}: has no prompt that the harmful rows have; answer the same prompts")
    return pairs


def _prompt(row: Conversation) -> tuple[str, ...]:
    return tuple(f"{turn['role']}: {turn['content']}" for turn in row.messages[:-1])
