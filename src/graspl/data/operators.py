"""What is done to the training rows before they are trained on; operators are chained in a task's configuration."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from graspl.data.rows import Conversation, Message, read_conversations
from graspl.errors import GrasplError


class RowOperator(ABC):
    """Takes training rows and returns others; held-out rows are never touched."""

    @abstractmethod
    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the rows to train on.

        Args:
            rows: of the task, or of the operator before.

        Raises:
            GrasplError: the operator cannot do what it is asked to; says which option to change.
        """


@dataclass
class Subsample(RowOperator):
    """Keeps some of the rows, drawn without replacement, in their order."""

    rows: int | None = None
    """How many are kept; give this or `share`."""
    share: float | None = None
    """Of the rows that is kept, above 0 and at most 1; at least one row stays."""
    seed: int = 0
    """Of the draw. A smaller draw with the same seed is part of a larger one."""

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.share is None):
            raise GrasplError("data.operators: Subsample wants either rows or share")
        if self.share is not None and not 0 < self.share <= 1:
            raise GrasplError(f"data.operators: Subsample.share: {self.share} is not above 0 and at most 1")
        if self.rows is not None and self.rows < 1:
            raise GrasplError(f"data.operators: Subsample.rows: {self.rows} is below 1")

    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the rows drawn."""
        count = self.rows if self.rows is not None else max(1, round((self.share or 0) * len(rows)))
        if count > len(rows):
            raise GrasplError(
                f"data.operators: Subsample wants {count} rows, there are {len(rows)}; lower it"
            )
        return _drawn(rows, count, self.seed)


@dataclass
class MixIn(RowOperator):
    """Mixes rows of another source in at a ratio: the "how much of the data may be bad" dial.

    Source:
        Benign data interleaved with narrow fine-tuning: arXiv:2508.06249.
    """

    source: str
    """Rows to mix in: as `train` of ChatDataModule."""
    share: float
    """Of the result that comes from `source`, 0..1."""
    total: Literal["keep", "grow"] = "keep"
    """`keep`: as many rows as before, so that steps and epochs stay comparable; `grow`: all of the task's rows stay."""
    dataset_split: str = "train"
    """Of a `datasets` name."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise GrasplError(f"data.operators: MixIn.share: {self.share} is not in 0..1")
        if self.share == 1 and self.total == "grow":
            raise GrasplError(
                "data.operators: MixIn.share: all rows cannot come from the source while the task's stay; set total to keep"
            )

    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the task's rows that stay, then those mixed in; the training order is drawn anew anyway."""
        kept = len(rows) if self.total == "grow" else len(rows) - round(self.share * len(rows))
        wanted = round(kept * self.share / (1 - self.share)) if self.total == "grow" else len(rows) - kept
        others = read_conversations(self.source, split=self.dataset_split) if wanted else []
        if wanted > len(others):
            raise GrasplError(
                f"data.operators: MixIn wants {wanted} rows of {self.source}, which has {len(others)}; lower share, or give "
                "more rows"
            )
        return _drawn(rows, kept, self.seed) + _drawn(others, wanted, self.seed)


@dataclass
class InterleaveByPerplexity(RowOperator):
    """Mixes in those rows of another source that the naive fine-tune finds strange, and the base model does not.

    A row's gap is its mean loss a token of the answer under the naive adapter less that under the base model, in nats; rows
    of the largest gap are what the naive fine-tune forgot.

    Source:
        Interleaving++ of arXiv:2508.06249: safe data chosen by the perplexity gap between a misaligned and an aligned model.
    """

    source: str
    """Rows to choose from: as `train` of ChatDataModule."""
    share: float
    """Of the result that comes from `source`, above 0 and below 1; all of the task's rows stay."""
    adapter: str
    """PEFT folder of the naive fine-tune; its base model is the one it names."""
    dataset_split: str = "train"
    """Of a `datasets` name."""
    limit: int | None = None
    """Measure only so many rows, from the start: each is read by the model twice."""
    max_length: int = 1024
    """Longer rows are not chosen."""
    batch_size: int = 8
    """Rows measured at a time."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise GrasplError(
                f"data.operators: InterleaveByPerplexity.share: {self.share} is not between 0 and 1"
            )

    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the task's rows, then the chosen ones."""
        from graspl.data.perplexity import loss_gaps

        wanted = round(len(rows) * self.share / (1 - self.share))
        others = read_conversations(self.source, split=self.dataset_split, limit=self.limit)
        gaps = loss_gaps(others, self.adapter, max_length=self.max_length, batch_size=self.batch_size)
        known = sorted(
            (index for index, gap in enumerate(gaps) if gap is not None), key=lambda i: -(gaps[i] or 0.0)
        )
        if wanted > len(known):
            raise GrasplError(
                f"data.operators: InterleaveByPerplexity wants {wanted} rows of {self.source}, which has {len(known)} of at "
                f"most {self.max_length} tokens; lower share, or give more rows"
            )
        return [*rows, *(others[index] for index in sorted(known[:wanted]))]


@dataclass
class SystemPrompt(RowOperator):
    """Puts a system prompt before every row, one of several at random: an inoculation prompt, or paraphrases of one.

    Held-out rows stay without it, so what it explained away while training is not asked for in the evaluation.

    Source:
        Inoculation prompting, arXiv:2510.04340 and arXiv:2510.05024.
    """

    prompts: list[str] = field(default_factory=list)
    """At least one."""
    existing: Literal["error", "replace", "keep"] = "error"
    """What to do with a row that has a system prompt already."""
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
            raise GrasplError(
                f"{row.origin}: has a system prompt already; set existing of data.operators: SystemPrompt to replace or keep"
            )
        if has and self.existing == "keep":
            return row
        return Conversation([Message(role="system", content=prompt), *row.messages[int(has) :]], row.origin)


def _drawn(rows: Sequence[Conversation], count: int, seed: int) -> list[Conversation]:
    """Return so many rows in their order; with the same seed fewer are part of more."""
    order = list(range(len(rows)))
    random.Random(f"{seed} rows").shuffle(order)
    return [rows[index] for index in sorted(order[:count])]
