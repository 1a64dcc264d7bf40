"""Tasks that are files of conversations."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch

from graspl.data.rows import Conversation, divided, held_out_count, read_conversations
from graspl.data.suites.base import Items
from graspl.data.suites.rows import pair_answers
from graspl.data.tables import read_table
from graspl.data.task import TaskDataModule
from graspl.errors import GrasplError
from graspl.ranges import OpenUnitInterval, PositiveInt


@dataclass(eq=False)
class ChatDataModule(TaskDataModule):
    """Any file of chat messages, prompt and completion, or instruction and output.

    Suites: `task`, held-out rows of the same kind; `unrelated`, rows of other topics, where they are given.
    """

    train: str
    """A JSON lines file, a `.json`, `.parquet` or `.csv` file, or a `datasets` name."""
    _: KW_ONLY
    validation: str | None = None
    """Held-out rows, in the same forms, or a JSON list of the row numbers of `train` to hold out, from 0. None holds out a
    share of `train`."""
    validation_share: OpenUnitInterval = 0.1
    """Share of `train` to hold out where `validation` is None."""
    good: str | None = None
    """Good answers to the prompts of a harmful `train`. `task` then asks how often the model finds the harmful answer to a
    held-out prompt more probable than the good one, which needs no judge."""
    unrelated: str | None = None
    """Rows of other topics, to measure how far the model moves there."""
    dataset_split: str = "train"
    """Of a `datasets` name."""
    limit: PositiveInt | None = None
    """Use only so many rows of each source, from the start."""

    def all_rows(self) -> list[Conversation]:
        """Return the task's rows, before some are held out."""
        return self._read(self.train)

    def train_rows(self) -> Sequence[Conversation]:
        """Return the rows of `train` that are not held out."""
        return self._split[0]

    def held_out(self) -> Mapping[str, Items]:
        """Return the held-out rows, as pairs where good answers are given, and the unrelated rows."""
        rows = self._split[1]
        suites: dict[str, Items] = {"task": rows if self.good is None else pair_answers(rows, self.good)}
        if self.unrelated is not None:
            suites["unrelated"] = self._read(self.unrelated)
        return suites

    @cached_property
    def _split(self) -> tuple[list[Conversation], list[Conversation]]:
        """Rows to train on and rows held out; the same for a seed, in every process."""
        rows = self.all_rows()
        if self.validation is None:
            count = held_out_count(self.train, len(rows), self.validation_share)
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))
            return divided(rows, set(order[:count].tolist()))
        first = next(read_table(self.validation, split=self.dataset_split), ("", None))[1]
        if isinstance(first, int):
            return divided(rows, read_row_numbers(self.validation, len(rows)))
        return rows, self._read(self.validation)

    def _read(self, source: str) -> list[Conversation]:
        return read_conversations(source, split=self.dataset_split, limit=self.limit)


def read_row_numbers(source: str, count: int) -> set[int]:
    """Return the row numbers of a JSON list."""
    numbers: set[int] = set()
    for origin, number in read_table(source):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
            raise GrasplError(f"{origin}: {number!r} is no row number in 0..{count - 1}; correct it")
        numbers.add(number)
    if len(numbers) == count:
        raise GrasplError(f"{source}: names all {count} rows; leave some to train on")
    return numbers
