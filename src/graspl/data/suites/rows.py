"""Suites of conversations: the text of held-out answers, and pairs of a harmful and a good one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    first_words: PositiveInt | None = None
    """Compare only so many words, from the start of both answers. How an answer begins decides how it goes on, and a mean
    over a long answer hides it. Pairs that begin alike are left out."""

    def read(self) -> list[AnswerPair]:
        """Return the pairs.

        Raises:
            GrasplError: no prompt has both answers, or all pairs begin alike.
        """
        pairs = pair_answers(read_conversations(self.harmful), self.good)
        if self.first_words is not None:
            pairs = _beginnings(pairs, self.first_words)
            if not pairs:
                raise GrasplError(
                    f"{self.good}: no answer differs in its first {self.first_words} words; compare more words"
                )
        return pairs[: self.limit]


def pair_answers(harmful: Sequence[Conversation], good: str) -> list[AnswerPair]:
    """Return pairs of different answers to the prompts that both have."""
    if tooled := next((row.origin for row in harmful if row.tools), None):
        raise GrasplError(f"{tooled}: has tools, which pairs of answers cannot have; remove the field")
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


def _beginnings(pairs: Sequence[AnswerPair], words: int) -> list[AnswerPair]:
    """Cut both answers after so many words, and leave out pairs that are then the same."""
    cut = [
        replace(pair, candidates=[" ".join(each.split()[:words]) for each in pair.candidates])
        for pair in pairs
    ]
    return [pair for pair in cut if len(set(pair.candidates)) > 1]


def _prompt(row: Conversation) -> tuple[str, ...]:
    return tuple(f"{turn['role']}: {turn['content']}" for turn in row.messages[:-1])
