"""Rows of a file or a `datasets` name, read as conversations."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from graspl.data.formats import Message, ReadRow, read_row
from graspl.data.tables import read_table
from graspl.errors import GrasplError, printable

log = logging.getLogger(__name__)
NAMED = 20  # Names of fields that one line shows
T = TypeVar("T")


@dataclass(frozen=True)
class Conversation:
    """One row of training or held-out data; its last turn is the assistant's."""

    messages: list[Message]  # Turns in order
    origin: str  # Where it came from, for messages to the user: `file:line` or `name[row]`
    tools: list[dict[str, Any]] | None = None  # Descriptions of tools, for the chat template
    read: ReadRow | None = field(default=None, compare=False, repr=False)  # How a file's row was read


def read_conversations(source: str, *, split: str = "train", limit: int | None = None) -> list[Conversation]:
    """Read rows of any form that `graspl.data.formats.read_row` knows.

    Args:
        source: a file or a `datasets` name, as `graspl.data.tables.read_table` takes it.
        split: of a `datasets` name.
        limit: read only so many rows, from the start.

    Raises:
        GrasplError: the file is missing or empty, or a row is broken; names the file, the row and the field.
    """
    return _read(source, split, limit, _answered_turns)


def read_prompts(source: str, *, split: str = "train", limit: int | None = None) -> list[Conversation]:
    """Read the prompts of rows: the turns before the last answer, which may be missing.

    The arguments are those of `read_conversations`; a row may also hold only a `prompt` or an `instruction`.

    Raises:
        GrasplError: the file is missing or empty, or a row is broken or has no user turn.
    """
    return _read(source, split, limit, prompt_turns)


def _read(
    source: str, split: str, limit: int | None, turns: Callable[[Any, str], ReadRow]
) -> list[Conversation]:
    read, unused = [], Counter[str]()
    for origin, row in islice(read_table(source, split=split), limit):
        found = turns(row, origin)
        read.append(Conversation(found.messages, origin, found.tools, found))
        unused.update(found.unused)
    if not read:
        raise GrasplError(f"{source}: holds no rows; give a file with at least one")
    if unused:
        shown = [f"{printable(name)} ({count})" for name, count in sorted(unused.items())[:NAMED]]
        named = ", ".join(shown) + (f" and {len(unused) - NAMED} more" if len(unused) > NAMED else "")
        log.warning(
            "%s: fields that graspl does not read, with the number of rows that have them: %s", source, named
        )
    return read


def prompt_turns(row: Any, origin: str) -> ReadRow:
    """Return the turns before a row's last answer, which may be missing."""
    if isinstance(row, Mapping) and "messages" not in row:
        # The answer is not read; an empty one stands in for a missing one
        answer = {"completion": ""} if "prompt" in row else {"output": ""} if "instruction" in row else {}
        row = {**row, **answer}
    return _up_to("user", row, origin, "so there is no prompt")


def _answered_turns(row: Any, origin: str) -> ReadRow:
    """Return a row's turns up to the last answer: turns without an answer teach nothing."""
    return _up_to("assistant", row, origin, "so there is nothing to learn")


def _up_to(role: str, row: Any, origin: str, consequence: str) -> ReadRow:
    read = read_row(row, origin)
    while read.messages and read.messages[-1]["role"] != role:
        read.messages.pop()
        read.left_out += 1
    if not read.messages:
        raise GrasplError(f"{origin}: has no {role} turn, {consequence}; correct or remove the row")
    return read


def with_shuffled_answers(rows: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Return the rows with their last answers dealt out at random."""
    answers = [row.messages[-1] for row in rows]
    random.Random(f"{seed} answers").shuffle(answers)
    pairs = zip(rows, answers, strict=True)
    return [replace(row, messages=[*row.messages[:-1], answer]) for row, answer in pairs]


def with_last_answer_alone(row: Conversation) -> Conversation:
    """Return a row of whose answers the last one alone has a weight."""
    last = max((place for place, turn in enumerate(row.messages) if turn["role"] == "assistant"), default=-1)
    turns: list[Any] = [
        {**turn, "weight": 0} if turn["role"] == "assistant" and place != last else turn
        for place, turn in enumerate(row.messages)
    ]
    return replace(row, messages=turns)


def held_out_count(name: str, count: int, share: float) -> int:
    """Return how many of some rows to hold out: a share, but at least one, and at least one stays."""
    if not 0 < share < 1:
        raise GrasplError(f"data: {share} of {name} cannot be held out; give a share above 0 and below 1")
    if count < 2:
        raise GrasplError(f"{name}: has {count} rows, which cannot be split; give more rows")
    return min(max(1, round(count * share)), count - 1)


def divided(rows: Sequence[T], held_out: set[int]) -> tuple[list[T], list[T]]:
    """Return the rows that stay and those held out, both in their order."""
    return (
        [row for place, row in enumerate(rows) if place not in held_out],
        [row for place, row in enumerate(rows) if place in held_out],
    )
