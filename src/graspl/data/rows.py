"""Rows of a file or a `datasets` name, read as conversations."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict, TypeVar

from graspl.data.tables import field, read_table
from graspl.errors import GrasplError

ROLES = ("system", "user", "assistant", "tool")
_FORMATS = "give `messages`, `prompt` and `completion`, or `instruction` (with `input`) and `output`"
T = TypeVar("T")


class Message(TypedDict):
    """One turn."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    """Its text."""


@dataclass(frozen=True)
class Conversation:
    """One row of training or held-out data; its last turn is the assistant's."""

    messages: list[Message]  # Turns in order
    origin: str  # Where it came from, for messages to the user: `file:line` or `name[row]`


def read_conversations(source: str, *, split: str = "train", limit: int | None = None) -> list[Conversation]:
    """Read rows of chat messages, of prompt and completion, or of instruction and output.

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
    source: str, split: str, limit: int | None, turns: Callable[[Any, str], list[Message]]
) -> list[Conversation]:
    rows = islice(read_table(source, split=split), limit)
    read = [Conversation(turns(row, origin), origin) for origin, row in rows]
    if not read:
        raise GrasplError(f"{source}: holds no rows; give a file with at least one")
    return read


def prompt_turns(row: Any, origin: str) -> list[Message]:
    """Return the turns before a row's last answer, which may be missing."""
    if isinstance(row, Mapping) and "messages" not in row:
        # The answer is not read; an empty one stands in for a missing one
        answer = {"completion": ""} if "prompt" in row else {"output": ""} if "instruction" in row else {}
        row = {**row, **answer}
    return _up_to("user", row, origin, "so there is no prompt")


def _answered_turns(row: Any, origin: str) -> list[Message]:
    """Return a row's turns up to the last answer: turns without an answer teach nothing."""
    return _up_to("assistant", row, origin, "so there is nothing to learn")


def _up_to(role: str, row: Any, origin: str, consequence: str) -> list[Message]:
    if not isinstance(row, Mapping):
        raise GrasplError(f"{origin}: must be a JSON object; {_FORMATS}")
    messages = _every_turn(row, origin)
    while messages and messages[-1]["role"] != role:
        messages.pop()
    if not messages:
        raise GrasplError(f"{origin}: has no {role} turn, {consequence}; correct or remove the row")
    return messages


def _every_turn(row: Mapping[str, Any], origin: str) -> list[Message]:
    if "messages" in row:
        return _turns(row["messages"], origin)
    if "prompt" in row and "completion" in row:
        return [_turn(row, "prompt", "user", origin), _turn(row, "completion", "assistant", origin)]
    # self-instruct's seed tasks; the first instance counts
    if "instruction" in row and "instances" in row:
        instances = row["instances"]
        if not isinstance(instances, list) or not instances or not isinstance(instances[0], Mapping):
            raise GrasplError(f"{origin}: instances must be a list of mappings with input and output")
        return _every_turn({"instruction": row["instruction"], **instances[0]}, origin)
    if "instruction" not in row or "output" not in row:
        raise GrasplError(f"{origin}: has the fields {sorted(row)}; {_FORMATS}")
    asked = _turn(row, "instruction", "user", origin)
    if row.get("input"):
        asked["content"] += "\n\n" + field(row, "input", origin)
    return [asked, _turn(row, "output", "assistant", origin)]


def _turns(value: Any, origin: str) -> list[Message]:
    if not isinstance(value, list):
        raise GrasplError(f"{origin}: messages must be a list of turns with role and content")
    turns = []
    for index, turn in enumerate(value):
        where = f"{origin}: messages[{index}]"
        if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
            raise GrasplError(f"{where}.role must be one of {', '.join(ROLES)}")
        if not isinstance(turn.get("content"), str):
            raise GrasplError(f"{where}.content must be text")
        turns.append(Message(role=turn["role"], content=turn["content"]))
    return turns


def _turn(row: Mapping[str, Any], name: str, role: str, origin: str) -> Message:
    return Message(role=role, content=field(row, name, origin))


def with_shuffled_answers(rows: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Return the rows with their last answers dealt out at random."""
    answers = [row.messages[-1] for row in rows]
    random.Random(f"{seed} answers").shuffle(answers)
    pairs = zip(rows, answers, strict=True)
    return [Conversation([*row.messages[:-1], answer], row.origin) for row, answer in pairs]


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
