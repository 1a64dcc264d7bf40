"""Rows of another source among the training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from graspl.data.operators import RowOperator, drawn
from graspl.data.rows import Conversation, read_conversations
from graspl.errors import GrasplError


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
        return drawn(rows, kept, self.seed) + drawn(others, wanted, self.seed)


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
