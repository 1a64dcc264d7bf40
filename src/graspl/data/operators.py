"""What changes the training rows before they are trained on; a task's configuration chains operators."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from graspl.data.rows import Conversation, Message
from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval, PositiveInt


class RowOperator(ABC):
    """Takes training rows and returns others; held-out rows are never touched."""

    @abstractmethod
    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the rows to train on.

        Raises:
            GrasplError: the operator cannot do what its options say; names the option to change.
        """


@dataclass
class Subsample(RowOperator):
    """Keeps some of the rows, drawn without replacement, in their order."""

    rows: PositiveInt | None = None
    """How many to keep; give this or `share`."""
    share: ClosedUnitInterval | None = None
    """Share of the rows to keep, above 0; at least one row stays."""
    seed: int = 0
    """Of the draw. A smaller draw with the same seed is part of a larger one."""

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.share is None):
            raise GrasplError("data.operators: Subsample needs either rows or share")
        if self.share is not None and not 0 < self.share <= 1:
            raise GrasplError(f"data.operators: Subsample.share: {self.share} is not above 0 and at most 1")

    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the rows drawn."""
        count = self.rows if self.rows is not None else max(1, round((self.share or 0.0) * len(rows)))
        return drawn(rows, count, self.seed, by="Subsample", of="the task")


@dataclass
class SystemPrompt(RowOperator):
    """Puts a system prompt before every row, one of several at random: an inoculation prompt, or paraphrases of one.

    Held-out rows stay without it, so the evaluation does not ask for what the prompt explained away.

    Source:
        Inoculation prompting, arXiv:2510.04340 and arXiv:2510.05024.
    """

    prompts: list[str] = field(default_factory=list)
    """At least one."""
    existing: Literal["error", "replace", "keep"] = "error"
    """What to do with a row that already has a system prompt."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise GrasplError("data.operators: SystemPrompt.prompts: give at least one, and none empty")

    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the rows, each with a prompt."""
        draw = random.Random(f"{self.seed} system prompts")
        return [self._prompted(row, draw.choice(self.prompts)) for row in rows]

    def _prompted(self, row: Conversation, prompt: str) -> Conversation:
        has = row.messages[0]["role"] == "system"
        if has and self.existing == "error":
            raise GrasplError(f"{row.origin}: has a system prompt; set existing to replace or keep")
        if has and self.existing == "keep":
            return row
        return replace(row, messages=[Message(role="system", content=prompt), *row.messages[int(has) :]])


def drawn(rows: Sequence[Conversation], count: int, seed: int, *, by: str, of: str) -> list[Conversation]:
    """Return so many rows in their order; with the same seed, fewer are part of more."""
    if not 0 <= count <= len(rows):
        fix = "change its share or number"
        raise GrasplError(f"data.operators: {by} needs {count} rows of {of}, which has {len(rows)}; {fix}")
    order = list(range(len(rows)))
    random.Random(f"{seed} rows").shuffle(order)
    return [rows[index] for index in sorted(order[:count])]
