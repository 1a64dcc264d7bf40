"""What a command was given: its words without secrets, its settings, and its files as they were when it began."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from graspl.runs.named import CONFIGS, configs_in, files_named

MADE_ALONG = (".sqlite",)  # Endings of files that a command writes beside its results, as a cache of replies
SECRET = r"[\w.-]*(?:api[_-]?keys?|token|passwords?|passwd|secrets?|authorization|credentials?)"
# `--api_key=x`, `"token": "x"`, `password: x`; names of variables (`api_key_env`) and numbers of tokens are no secrets
ASSIGNED = re.compile(
    rf"(?i)((?:^|[\s\-{{,\"'.?&])(?:{SECRET})[\"']?\s*[:=]\s*[\"']?)(?!\d+\b)([^\s\"',}}&]+)"
)
NAMED = re.compile(rf"(?i)--(?:{SECRET})")
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\"]+")
IN_ADDRESS = re.compile(r"//[^/@\s]+@")
KEY = re.compile(r"\b(?:sk|hf|gh[pousr]|xox[abp])[-_][\w-]{16,}")


@dataclass(frozen=True)
class Given:
    """What the command in progress was given."""

    command: str  # Its name
    arguments: tuple[str, ...] = ()  # As typed, without secrets
    settings: str | None = None  # SHA-256 of all its options, with their defaults
    configs: tuple[str, ...] = ()  # The configuration files that it was given, and those that they include
    files: tuple[str, ...] = ()  # Other files that its options name
    # SHA-256, size and time of change of what it reads, as it was before it was read: by resolved path, then by file
    as_read: dict[Path, dict[str, Any]] = field(default_factory=dict[Path, dict[str, Any]])


_given: ContextVar[Given | None] = ContextVar("what the command in progress was given", default=None)


def given() -> Given | None:
    """Return what the command in progress was given; None where graspl is called from Python."""
    return _given.get()


@contextmanager
def running(command: str, arguments: Sequence[str], options: str) -> Iterator[Given]:
    """Make known what a command was given, while it runs.

    Args:
        command: its name.
        arguments: as typed, after the name.
        options: all its options, with their defaults, as YAML.
    """
    configs = configs_in(arguments)
    named = dict.fromkeys(map(str, files_named(yaml.safe_load(options), Path())))
    files = [each for each in named if Path(each).suffix not in (*CONFIGS, *MADE_ALONG)]
    digest = hashlib.sha256(options.encode()).hexdigest()
    found = Given(command, without_secrets(arguments), digest, tuple(configs), tuple(files))
    token = _given.set(found)
    try:
        yield found
    finally:
        _given.reset(token)


def without_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command with *** for keys, tokens, passwords, and names and passwords in addresses."""
    found, hide = [], False
    for argument in arguments:
        found.append("***" if hide else hidden(argument))
        hide = bool(NAMED.fullmatch(argument))
    return tuple(found)


def hidden(text: str) -> str:
    """Return a text with *** for keys, tokens, passwords, and names and passwords in addresses."""
    text = BEARER.sub(r"\1 ***", text)
    text = IN_ADDRESS.sub("//***@", text)
    return KEY.sub("***", ASSIGNED.sub(r"\1***", text))
