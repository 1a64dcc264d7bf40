"""Tasks that are files of conversations."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from graspl.data.rows import Conversation, read_conversations
from graspl.data.task import Suite, TaskDataModule
from graspl.errors import GrasplError


class ChatDataModule(TaskDataModule):
    """Any file of chat messages, prompt and completion, or instruction and output.

    Suites: `task`, held-out rows of the same kind; `unrelated`, rows of other topics, where one is given.

    Args:
        train: a JSON lines file, a `.json`, `.parquet` or `.csv` file, or a `datasets` name.
        validation: the same, held out; without it a share of `train` is held out.
        unrelated: the same, of other topics, to measure how far the model moves there.
        dataset_split: of a `datasets` name.
        validation_share: of `train` that is held out where there is no `validation`.
        limit: use only so many rows of each, from the start.
        **kwargs: as in TaskDataModule.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        unrelated: str | None = None,
        dataset_split: str = "train",
        validation_share: float = 0.1,
        limit: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.train = train
        self.validation = validation
        self.unrelated = unrelated
        self.dataset_split = dataset_split
        self.validation_share = validation_share
        self.limit = limit

    def train_rows(self) -> Sequence[Conversation]:
        """Return the rows of `train` that are not held out."""
        return self._split[0]

    def held_out(self) -> Mapping[str, Suite]:
        """Return the held-out rows and, where given, the unrelated ones."""
        suites: dict[str, Suite] = {"task": self._split[1]}
        if self.unrelated is not None:
            suites["unrelated"] = self._read(self.unrelated)
        return suites

    @cached_property
    def _split(self) -> tuple[list[Conversation], list[Conversation]]:
        """Rows to train on and rows held out; the same for a seed, in every process."""
        rows = self._read(self.train)
        if self.validation is not None:
            return rows, self._read(self.validation)
        if not 0 < self.validation_share < 1:
            raise GrasplError(f"data.validation_share: {self.validation_share} is not between 0 and 1")
        if len(rows) < 2:
            raise GrasplError(f"{self.train}: one row cannot be split; give more rows or data.validation")
        count = min(max(1, round(len(rows) * self.validation_share)), len(rows) - 1)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held_out = set(order[:count])
        return (
            [row for index, row in enumerate(rows) if index not in held_out],
            [row for index, row in enumerate(rows) if index in held_out],
        )

    def _read(self, source: str) -> list[Conversation]:
        return read_conversations(source, split=self.dataset_split, limit=self.limit)
