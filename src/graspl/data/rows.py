"""Rows of a file or a `datasets` name, read as conversations."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

from graspl.errors import GrasplError

ROLES = ("system", "user", "assistant", "tool")
_BUILDERS = {".parquet": "parquet", ".csv": "csv", ".json": "json"}
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
        source: a JSON lines file (`.jsonl`), a `.json`, `.parquet` or `.csv` file, or a name that
            `datasets.load_dataset` knows.
        split: of a `datasets` name.
        limit: read only so many rows, from the start.

    Raises:
        GrasplError: no such file, no rows, or a row that is broken; names the file, the row and the field.
    """
    conversations = []
    for origin, row in _rows(source, split):
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
    prompts = []
    for origin, row in islice(_rows(source, split), limit):
        if isinstance(row, Mapping):
            # The answer is not read; an empty one stands in where there is none
            row = (
                {**row, "completion": ""}
                if "prompt" in row
                else {**row, "output": ""}
                if "instruction" in row
                else row
            )
        messages = (
            _turns(row["messages"], origin)
            if isinstance(row, Mapping) and "messages" in row
            else _messages(row, origin)
        )
        while messages and messages[-1]["role"] != "user":
            messages.pop()
        if not messages:
            raise GrasplError(f"{origin}: no user turn, so there is no prompt; mend or remove the row")
        prompts.append(Conversation(messages, origin))
    if not prompts:
        raise GrasplError(f"{source}: holds no rows; give a file with at least one")
    return prompts


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


def _rows(source: str, split: str) -> Iterator[tuple[str, Any]]:
    path = Path(source).expanduser()
    if path.suffix == ".jsonl" or (path.suffix == "" and path.is_file()):
        return _json_lines(path)
    return _datasets_rows(source, path, split)


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Read lines here rather than with `datasets`, which forgets a row's line."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", _parse(line, f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise GrasplError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise GrasplError(f"{path}: cannot be read ({error.strerror}); give an existing file") from error


def _parse(line: str, origin: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise GrasplError(f"{origin}: not JSON ({error}); mend or remove the row") from error


def _datasets_rows(source: str, path: Path, split: str) -> Iterator[tuple[str, Any]]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        if path.suffix in _BUILDERS:
            if not path.is_file():
                raise GrasplError(f"{path}: cannot be read (No such file); give an existing file")
            table = datasets.load_dataset(_BUILDERS[path.suffix], data_files=str(path), split="train")
        else:
            table = datasets.load_dataset(source, split=split)
    except GrasplError:
        raise
    except (OSError, ValueError, ConnectionError, DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GrasplError(f"{source}: neither a file nor a dataset that loads ({reason})") from error
    for index, row in enumerate(table):
        # A table gives every row all columns; those that a row did not have are None
        yield f"{source}[{index}]", {key: cell for key, cell in dict(row).items() if cell is not None}


def _messages(row: Any, origin: str) -> list[Message]:
    """Return a row's turns up to the last of the assistant."""
    if not isinstance(row, Mapping):
        raise GrasplError(f"{origin}: must be a JSON object; {_FORMATS}")
    if "messages" in row:
        messages = _turns(row["messages"], origin)
    elif "prompt" in row and "completion" in row:
        messages = [_text(row, "prompt", "user", origin), _text(row, "completion", "assistant", origin)]
    elif "instruction" in row and "output" in row:
        messages = [_text(row, "instruction", "user", origin), _text(row, "output", "assistant", origin)]
        if row.get("input"):
            messages[0]["content"] += "\n\n" + _text(row, "input", "user", origin)["content"]
    else:
        raise GrasplError(f"{origin}: has the fields {sorted(row)}; {_FORMATS}")
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()  # nothing is learnt from turns that no answer follows
    if not messages:
        raise GrasplError(f"{origin}: no assistant turn, so nothing to learn from; mend or remove the row")
    return messages


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
