"""Batches of conversations, padded or packed, and a training loader that resumes in the middle of an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

from graspl.adapters.answers import IGNORED, answer_places
from graspl.data.tokens import TokenizedConversation

SEED_STRIDE = 100_003  # More than the epochs of any run


@dataclass
class PaddedCollator:
    """Pads rows on the right."""

    pad_token_id: int

    def __call__(self, rows: Sequence[TokenizedConversation]) -> dict[str, Any]:
        """Return `input_ids`, `attention_mask` and `labels`, all (b, L), `answer_index` (n,) and `prompts`, b texts."""
        labels = _pad([row.labels for row in rows], IGNORED)
        return {
            "input_ids": _pad([row.input_ids for row in rows], self.pad_token_id),
            "attention_mask": _pad([[1] * len(row) for row in rows], 0),
            "labels": labels,
            "answer_index": answer_index(labels),
            "prompts": [row.prompt for row in rows],
        }


@dataclass
class PackedCollator:
    """Stacks packs, each a list of rows one after another.

    There is no attention mask: where `position_ids` start again at 0, Transformers begins a new row and lets no row attend
    to another. Flash attention does so only for a single pack, so `row_lengths` say it too. Every padding token is a row of
    its own; in `row_lengths` all of a pack's padding is one row.
    """

    pad_token_id: int

    def __call__(self, packs: Sequence[Sequence[TokenizedConversation]]) -> dict[str, Any]:
        """Return `input_ids`, `position_ids` and `labels`, all (b, L), `answer_index` (n,), and `row_lengths` of b packs."""
        # A row's first token would be predicted from the row before
        labels = _pad([[i for row in pack for i in (IGNORED, *row.labels[1:])] for pack in packs], IGNORED)
        lengths = [[len(row) for row in pack] for pack in packs]
        padding = [labels.shape[1] - sum(pack) for pack in lengths]
        ids = [[i for row in pack for i in row.input_ids] for pack in packs]
        return {
            "input_ids": _pad(ids, self.pad_token_id),
            "position_ids": _pad([[p for row in pack for p in range(len(row))] for pack in packs], 0),
            "labels": labels,
            "answer_index": answer_index(labels),
            "row_lengths": [
                [*pack, rest] if rest else pack for pack, rest in zip(lengths, padding, strict=True)
            ],
        }


def answer_index(labels: Tensor) -> Tensor:
    """Return the places that predict an answer token, counted through all rows: (n,).

    `labels` are (b, L). Here on the host this costs nothing; on an accelerator the step would wait for it.
    """
    return answer_places(labels).flatten().nonzero().squeeze(-1)


def _pad(rows: list[list[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def pack(
    rows: Sequence[TokenizedConversation], *, max_length: int, seed: int
) -> list[list[TokenizedConversation]]:
    """Put rows into packs of at most ``max_length`` tokens, first fit in a shuffled order; every row is in exactly one."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    packs: list[list[TokenizedConversation]] = []
    room: list[int] = []
    for row in (rows[index] for index in order):
        # Try only the latest packs: older ones are nearly full, and the search stays linear
        recent = range(max(0, len(packs) - 64), len(packs))
        place = next((index for index in recent if room[index] >= len(row)), None)
        if place is None:
            packs.append([])
            room.append(max_length)
            place = len(packs) - 1
        packs[place].append(row)
        room[place] -= len(row)
    return packs


class TrainSampler(DistributedLengthGroupedSampler):
    """Order of one epoch, which depends only on seed and epoch; it can start in the middle.

    Rows of similar length come together, in random order (equal lengths give a plain shuffle). It is a
    `DistributedSampler`, so Lightning sets its epoch and does not wrap it again. The batches i of all processes are together
    batch i of one process with as many times the rows; `batch_size` counts the rows of one process.
    """

    def __init__(
        self, lengths: list[int], batch_size: int, *, num_replicas: int, rank: int, seed: int
    ) -> None:
        # The base class shuffles by seed + epoch; a stride keeps seed 0's second epoch from being seed 1's first. It groups
        # by the rows of all processes together, so that the order does not depend on their number
        super().__init__(
            batch_size * num_replicas,
            num_replicas=num_replicas,
            rank=rank,
            seed=seed * SEED_STRIDE,
            lengths=lengths,
        )
        self.skip = 0
        """Rows to leave out at the start of the next epoch only."""

    def __iter__(self) -> Iterator[int]:
        """Return the indices of this process."""
        skip, self.skip = self.skip, 0
        return islice(super().__iter__(), skip, None)


class TrainLoader(DataLoader[Any]):
    """A DataLoader whose state is how many rows of the epoch all processes together have seen.

    Lightning keeps that state in its checkpoints: a killed run continues with the very next batch, even with another
    number of processes.
    """

    def __init__(self, dataset: Any, sampler: TrainSampler, **options: Any) -> None:
        # Its own generator, so that the loader draws nothing from the global one, which dropout uses
        super().__init__(dataset, sampler=sampler, generator=torch.Generator(), **options)
        self._train_sampler = sampler
        self._given = 0
        self._start = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of one epoch; after `load_state_dict` the rest of it."""
        self._given, self._start = self._start, 0
        self._train_sampler.skip = self._given * int(self.batch_size or 1)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many rows of the epoch were seen."""
        return {"rows": self._given * self._rows_a_batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from that state; after a finished epoch nothing is skipped."""
        self._start = state_dict["rows"] // self._rows_a_batch % len(self)

    @property
    def _rows_a_batch(self) -> int:
        return int(self.batch_size or 1) * self._train_sampler.num_replicas
