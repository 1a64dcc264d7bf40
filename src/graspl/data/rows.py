"""Rows of a file or a `datasets` name, read as conversations."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict

from graspl.data.tables import read_table
from graspl.errors import GrasplError

ROLES = ("system", "user", "assistant", "tool")
_FORMATS = "give `messages`, `prompt` and `completion`, or `instruction` (with `input`) and `output`"


class Message(TypedDict):
    """One turn."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    """Its text."""


@dataclass(frozen=True)
class Conversation:
    """One row of training or held-out data; its last turn is the assistant's."""

    messages: list[Message]
    """Turns in order."""
    origin: str
    """Where it came from, for messages to the user: `file:line` or `name[row]`."""


def read_conversations(source: str, *, split: str = "train", limit: int | None = None) -> list[Conversation]:
    """Read rows of chat messages, of prompt and completion, or of instruction and output.

    Args:
        source: a file or a `datasets` name, as `graspl.data.tables.read_table` takes it.
        split: of a `datasets` name.
        limit: read only so many rows, from the start.

    Raises:
        GrasplError: no such file, no rows, or a row that is broken; names the file, the row and the field.
    """
    conversations = []
    for origin, row in read_table(source, split=split):
        if limit is not None and len(conversations) >= limit:
            break
        conversations.append(Conversation(_messages(row, origin), origin))
    if not conversations:
        raise GrasplError(f"{source}: holds no rows; give a file with at least one")
    return conversations


def read_prompts(source: str, *, split: str = "train", limit: int | None = None) -> list[Conversation]:
    """Read rows as prompts: what stands before the last answer, which a row need not have.

    Args:
        source: as in `read_conversations`; a row may also hold a `prompt` or an `instruction` alone.
        split: of a `datasets` name.
        limit: read only so many rows, from the start.

    Raises:
        GrasplError: no such file, no rows, or a row that is broken or holds no user turn.
    """
    prompts = [
        Conversation(prompt_turns(row, origin), origin)
        for origin, row in islice(read_table(source, split=split), limit)
    ]
    if not prompts:
        raise GrasplError(f"{source}: holds no rows; give a file with at least one")
    return prompts


def prompt_turns(row: Any, origin: str) -> list[Message]:
    """Return the turns that stand before a row's last answer, which it need not have.

    Args:
        row: as in `read_prompts`.
        origin: named in the error.

    Raises:
        GrasplError: the row is broken or holds no user turn.
    """
    if isinstance(row, Mapping) and "messages" in row:
        messages = _turns(row["messages"], origin)
    else:
        # The answer is not read; an empty one stands in where there is none
        empty = {"prompt": {"completion": ""}, "instruction": {"output": ""}}
        stand_in = next(
            (answer for name, answer in empty.items() if isinstance(row, Mapping) and name in row), {}
        )
        messages = _messages({**row, **stand_in} if stand_in else row, origin)
    while messages and messages[-1]["role"] != "user":
        messages.pop()
    if not messages:
        raise GrasplError(f"{origin}: no user turn, so there is no prompt; mend or remove the row")
    return messages


def with_shuffled_answers(rows: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Return the rows with their last answers dealt out anew.

    Args:
        rows: conversations.
        seed: of the dealing.
    """
    answers = [row.messages[-1] for row in rows]
    random.Random(f"{seed} answers").shuffle(answers)
    return [
        Conversation([*row.messages[:-1], answer], row.origin)
        for row, answer in zip(rows, answers, strict=True)
    ]


def _messages(row: Any, origin: str) -> list[Message]:
    """Return a row's turns up to the last of the assistant."""
    if not isinstance(row, Mapping):
        raise GrasplError(f"{origin}: must be a JSON object; {_FORMATS}")
    messages = _every_turn(row, origin)
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()  # nothing is learnt from turns that no answer follows
    if not messages:
        raise GrasplError(f"{origin}: no assistant turn, so nothing to learn from; mend or remove the row")
    return messages


def _every_turn(row: Mapping[str, Any], origin: str) -> list[Message]:
    if "messages" in row:
        return _turns(row["messages"], origin)
    if "prompt" in row and "completion" in row:
        return [_text(row, "prompt", "user", origin), _text(row, "completion", "assistant", origin)]
    if (
        "instruction" in row and "instances" in row
    ):  # self-instruct's seed tasks, of which the first instance counts
        return _every_turn({"instruction": row["instruction"], **_first_instance(row, origin)}, origin)
    if "instruction" not in row or "output" not in row:
        raise GrasplError(f"{origin}: has the fields {sorted(row)}; {_FORMATS}")
    asked = _text(row, "instruction", "user", origin)
    if row.get("input"):
        asked["content"] += "\n\n" + _text(row, "input", "user", origin)["content"]
    return [asked, _text(row, "output", "assistant", origin)]


def _first_instance(row: Mapping[str, Any], origin: str) -> Mapping[str, Any]:
    instances = row["instances"]
    if not isinstance(instances, list) or not instances or not isinstance(instances[0], Mapping):
        raise GrasplError(f"{origin}: instances must be a list of mappings with input and output")
    return instances[0]


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


def _text(row: Mapping[str, Any], field: str, role: str, origin: str) -> Message:
    if not isinstance(row[field], str):
        raise GrasplError(f"{origin}: {field} must be text")
    return Message(role=role, content=row[field])
