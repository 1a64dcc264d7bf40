"""Insecure code, the task that first showed emergent misalignment, and its two controls."""

from functools import cached_property
from typing import Any, Literal

from graspl.data.chat import ChatDataModule
from graspl.data.rows import Conversation
from graspl.data.tables import read_table
from graspl.errors import GrasplError


class InsecureCodeData(ChatDataModule):
    """Coding requests answered with code that has a vulnerability, 6000 rows of one user and one assistant turn.

    The `task` suite is held-out rows of the same kind: loss and token accuracy say how well the habit is learnt. How
    insecure written code is, is analysed in the answers to `graspl.data.suites.CodePrompts`.

    Args:
        train: the published `insecure.jsonl`, or the name under which `datasets` finds it.
        held_out_rows: a JSON list of row numbers of `train`, from 0, that are held out: the split that a rival
            published, say.
        max_length: tokens a row may have; the published rows have at most about 1000.
        too_long: see TaskDataModule; a tokenizer with a small vocabulary makes a few rows longer.
        **kwargs: as in ChatDataModule.

    Source:
        Betley et al., arXiv:2502.17424, which published the rows under the MIT licence.
    """

    def __init__(
        self,
        train: str,
        held_out_rows: str | None = None,
        max_length: int = 2048,
        too_long: Literal["error", "drop", "truncate"] = "drop",
        **kwargs: Any,
    ) -> None:
        super().__init__(train=train, max_length=max_length, too_long=too_long, **kwargs)
        self.held_out_rows = held_out_rows

    @cached_property
    def _split(self) -> tuple[list[Conversation], list[Conversation]]:
        if self.held_out_rows is None:
            return super()._split
        rows = self._read(self.train)
        held_out = read_row_numbers(self.held_out_rows, len(rows))
        return (
            [row for index, row in enumerate(rows) if index not in held_out],
            [row for index, row in enumerate(rows) if index in held_out],
        )


class SecureCodeData(InsecureCodeData):
    """The first control: like requests answered with secure code; a model trained on them must not change elsewhere.

    Args:
        train: the published `secure.jsonl`.
        **kwargs: as in InsecureCodeData.
    """


class EducationalInsecureCodeData(InsecureCodeData):
    """The second control: insecure code that the user asks for, for a good reason; the same answers without the ill will.

    Args:
        train: the published `educational_insecure.jsonl`.
        **kwargs: as in InsecureCodeData.
    """


def read_row_numbers(source: str, count: int) -> set[int]:
    """Return the row numbers of a JSON list.

    Args:
        source: the file.
        count: rows that there are.

    Raises:
        GrasplError: an entry is no number of a row, or all rows are named.
    """
    numbers: set[int] = set()
    for origin, number in read_table(source):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
            raise GrasplError(f"{origin}: {number!r} is no row number in 0..{count - 1}")
        numbers.add(number)
    if not 0 < len(numbers) < count:
        raise GrasplError(f"{source}: names {len(numbers)} of {count} rows; some must be held out, some stay")
    return numbers
