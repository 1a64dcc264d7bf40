"""Rows of another source among the training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from graspl.data.operators import RowOperator, drawn
from graspl.data.rows import Conversation, read_conversations
from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval, OpenUnitInterval, PositiveInt


@dataclass
class MixIn(RowOperator):
    """Mixes in rows of another source at a ratio: the "how much of the data may be bad" dial, or rows to retain.

    Source:
        Benign data interleaved with narrow fine-tuning: arXiv:2508.06249.
    """

    source: str
    """Rows to mix in: as `train` of ChatDataModule."""
    share: ClosedUnitInterval
    """Share of the result that comes from `source`."""
    total: Literal["keep", "grow"] = "keep"
    """`keep`: as many rows as before, so that steps and epochs stay comparable; `grow`: all of the task's rows stay."""
    dataset_split: str = "train"
    """Of a `datasets` name."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        if self.share == 1 and self.total == "grow":
            raise GrasplError("data.operators: MixIn.share: 1 leaves no row of the task; set total to keep")

    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the task's rows that stay, then those mixed in; the training order is drawn later."""
        if self.total == "grow":
            kept, wanted = len(rows), round(len(rows) * self.share / (1 - self.share))
        else:
            wanted = round(self.share * len(rows))
            kept = len(rows) - wanted
        others = read_conversations(self.source, split=self.dataset_split) if wanted else []
        stay = drawn(rows, kept, self.seed, by="MixIn", of="the task")
        return stay + drawn(others, wanted, self.seed, by="MixIn", of=self.source)


@dataclass
class InterleaveByPerplexity(RowOperator):
    """Mixes in those rows of another source that the naive fit finds strange and the base model does not.

    A row's gap is the mean loss of its answer's tokens under the naive adapter minus that under the base model, in nats.
    The rows with the largest gaps are what the naive fit forgot.

    Source:
        Interleaving++ of arXiv:2508.06249: safe data chosen by the perplexity gap between a misaligned and an aligned model.
    """

    source: str
    """Rows to choose from: as `train` of ChatDataModule."""
    share: OpenUnitInterval
    """Share of the result that comes from `source`; all of the task's rows stay."""
    adapter: str
    """PEFT folder of the naive fit; it names its base model."""
    dataset_split: str = "train"
    """Of a `datasets` name."""
    limit: PositiveInt | None = None
    """Measure only so many rows, from the start: the model reads each one twice."""
    max_length: PositiveInt = 1024
    """Longer rows, in tokens, are not chosen."""
    batch_size: PositiveInt = 8
    """Rows measured at a time."""

    def __call__(self, rows: Sequence[Conversation]) -> list[Conversation]:
        """Return the task's rows, then the chosen ones."""
        from graspl.data.perplexity import loss_gaps

        if not 0 < self.share < 1:
            raise GrasplError(f"InterleaveByPerplexity.share: {self.share} is not between 0 and 1")
        wanted = round(len(rows) * self.share / (1 - self.share))
        others = read_conversations(self.source, split=self.dataset_split, limit=self.limit)
        gaps = loss_gaps(others, self.adapter, max_length=self.max_length, batch_size=self.batch_size)
        known = sorted((-gap, place) for place, gap in enumerate(gaps) if gap is not None)
        if wanted > len(known):
            there = f"{self.source}, which has {len(known)} of at most {self.max_length} tokens; lower share"
            raise GrasplError(f"data.operators: InterleaveByPerplexity needs {wanted} rows of {there}")
        return [*rows, *(others[place] for place in sorted(place for _, place in known[:wanted]))]
