"""The forms that rows of training data come in, read as turns; fields that no form has are named, not lost."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from graspl.data.tables import field as text_field
from graspl.errors import GrasplError

ROLES = ("system", "user", "assistant", "tool")
FORMATS = "give `messages`, `conversations`, `prompt` and `completion`, or `instruction` (with `input`) and `output`"
# Roles of ShareGPT rows, by their usual names
SHARED_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
SHOWN = (
    "tool_calls",
    "reasoning_content",
)  # Fields of a turn that hold text, which the chat template must show
PASSED = ("name", "tool_call_id")  # Given to the chat template, which may leave them out


class Message(TypedDict):
    """One turn."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    """Its text."""
    tool_calls: NotRequired[list[dict[str, Any]]]
    """Calls of an assistant's turn, as the chat template takes them; arguments are mappings."""
    reasoning_content: NotRequired[str]
    """What the assistant thought before."""
    weight: NotRequired[int]
    """0 where an assistant's turn is not to be trained on, else 1."""
    name: NotRequired[str]
    """Of a tool."""
    tool_call_id: NotRequired[str]
    """Of the call that a tool answers."""


@dataclass
class ReadRow:
    """What a row holds."""

    messages: list[Message]  # Turns in order
    tools: list[dict[str, Any]] | None = None  # Descriptions for the chat template
    unused: set[str] = field(default_factory=set)  # Names of fields that nothing reads
    form: str = ""  # Names of the fields that were read
    left_out: int = 0  # Turns behind the last one that is wanted


def read_row(row: Any, origin: str) -> ReadRow:
    """Return a row's turns.

    Known are: `messages` (role and content), `conversations` (from and value, as ShareGPT has them, or role and content),
    `prompt` and `completion` (texts, or lists of messages), `instruction` (with `input`) and `output` or `instances`.
    With each go a `system` text and `tools`, and with instructions a `history` of [question, answer].

    Raises:
        GrasplError: the row is of no known form, or a field of it is not what it should be; names the place and the field.
    """
    if not isinstance(row, Mapping):
        raise GrasplError(f"{origin}: must be a JSON object; {FORMATS}")
    read, known = _formed(row, origin)
    if row.get("system"):
        if read.messages and read.messages[0]["role"] == "system":
            raise GrasplError(f"{origin}: has a field system and a system turn; remove one of them")
        read.messages.insert(0, Message(role="system", content=_text(row["system"], f"{origin}: system")))
    if row.get("tools"):
        read.tools = _tools(row["tools"], origin)
    read.form = ", ".join(key for key in (*known, "system", "tools") if row.get(key) not in (None, [], ""))
    # None and empty lists are what a table gives rows without the field
    read.unused |= {
        str(key) for key in row if key not in (*known, "system", "tools") and row[key] not in (None, [], "")
    }
    return read


def _formed(row: Mapping[str, Any], origin: str) -> tuple[ReadRow, tuple[str, ...]]:
    """Return what the row's own form holds, and the fields that belong to it."""
    if "messages" in row:
        return _turns(row["messages"], origin, "messages"), ("messages",)
    if "conversations" in row:
        return _turns(row["conversations"], origin, "conversations"), ("conversations",)
    if "prompt" in row and "completion" in row:
        asked, answered = (
            _said(row, name, role, origin) for name, role in (("prompt", "user"), ("completion", "assistant"))
        )
        return ReadRow(asked.messages + answered.messages, None, asked.unused | answered.unused), (
            "prompt",
            "completion",
        )
    if "instruction" in row and "instances" in row:  # self-instruct's seed tasks; the first instance counts
        instances = row["instances"]
        if not isinstance(instances, list) or not instances or not isinstance(instances[0], Mapping):
            raise GrasplError(f"{origin}: instances must be a list of mappings with input and output")
        read, _ = _formed({"instruction": row["instruction"], **instances[0]}, origin)
        return read, ("instruction", "instances")
    if "instruction" not in row or "output" not in row:
        raise GrasplError(f"{origin}: has the fields {sorted(map(str, row))}; {FORMATS}")
    asked = text_field(row, "instruction", origin)
    if row.get("input"):
        asked += "\n\n" + text_field(row, "input", origin)
    turns = [
        *_history(row.get("history") or [], origin),
        Message(role="user", content=_text(asked, f"{origin}: instruction")),
        Message(role="assistant", content=_text(row["output"], f"{origin}: output")),
    ]
    return ReadRow(turns), ("instruction", "input", "output", "history")


def _history(value: Any, origin: str) -> list[Message]:
    """Return the turns of pairs of question and answer."""
    turns = []
    for index, pair in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise GrasplError(f"{origin}: history[{index}] must be a list of a question and its answer")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            turns.append(Message(role=role, content=_text(text, f"{origin}: history[{index}]")))
    return turns


def _said(row: Mapping[str, Any], name: str, role: str, origin: str) -> ReadRow:
    """Return a prompt or a completion, a text or a list of messages."""
    if isinstance(row[name], list):
        return _turns(row[name], origin, name)
    return ReadRow([Message(role=role, content=_text(text_field(row, name, origin), f"{origin}: {name}"))])


def _turns(value: Any, origin: str, name: str) -> ReadRow:
    if not isinstance(value, list):
        raise GrasplError(f"{origin}: {name} must be a list of turns with role and content")
    read = ReadRow([])
    for index, turn in enumerate(value):
        message, unused = _turn(turn, f"{origin}: {name}[{index}]")
        read.messages.append(message)
        read.unused |= {f"{name}[].{key}" for key in unused}
    return read


def _turn(turn: Any, where: str) -> tuple[Message, set[str]]:
    """Return a turn, and the names of its fields that nothing reads."""
    given = _given(turn, where)
    content = given.get("content", "" if given.get("tool_calls") else None)
    message = Message(role=given["role"], content=_text(content, f"{where}.content"))
    if "tool_calls" in given:
        message["tool_calls"] = _tool_calls(given["tool_calls"], f"{where}.tool_calls")
    for name in ("reasoning_content", *PASSED):
        if name in given:
            message[name] = _text(given[name], f"{where}.{name}")  # type: ignore[literal-required]
    if "weight" in given:
        if given["weight"] not in (0, 1):
            raise GrasplError(f"{where}.weight is {given['weight']!r}; it must be 0 or 1")
        message["weight"] = int(given["weight"])
    return message, {str(key) for key in given} - {"role", "content", "weight", *SHOWN, *PASSED}


def _given(turn: Any, where: str) -> dict[str, Any]:
    """Return what a turn has, under the usual names."""
    if isinstance(turn, Mapping) and "from" in turn and "role" not in turn:
        if str(turn["from"]) not in SHARED_ROLES:
            raise GrasplError(f"{where}.from must be one of {', '.join(SHARED_ROLES)}")
        rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
        turn = {**rest, "role": SHARED_ROLES[str(turn["from"])], "content": turn.get("value")}
    if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
        raise GrasplError(f"{where}.role must be one of {', '.join(ROLES)}")
    return {key: value for key, value in turn.items() if value not in (None, [])}


def _text(value: Any, where: str) -> str:
    """Return a text, or the joined text parts of a list."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        kinds = {str(part.get("type")) for part in value}
        if kinds != {"text"}:
            raise GrasplError(
                f"{where}: has parts of type {', '.join(sorted(kinds))}; graspl reads text alone"
            )
        value = "".join(_text(part.get("text"), f"{where}[].text") for part in value)
    if not isinstance(value, str):
        raise GrasplError(f"{where} must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise GrasplError(
            f"{where}: is not valid Unicode text ({error.reason}); correct or remove the row"
        ) from error
    return value


def _tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Return calls with arguments as mappings: chat templates would quote a text a second time."""
    calls = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise GrasplError(f"{where}: a call must have a function with a name")
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError as error:
                raise GrasplError(
                    f"{where}: the arguments of {function['name']} are not JSON ({error})"
                ) from error
        made = {"name": function["name"], "arguments": arguments}
        rest = {key: each for key, each in call.items() if key not in ("function", "name", "arguments")}
        calls.append({"type": "function", **rest, "function": made})
    return calls


def _tools(value: Any, origin: str) -> list[dict[str, Any]]:
    """Return descriptions of tools, which some files hold as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise GrasplError(f"{origin}: tools is not JSON ({error})") from error
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise GrasplError(f"{origin}: tools must be a list of mappings")
    return [dict(each) for each in value]
