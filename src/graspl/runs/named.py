"""The files that a configuration names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from graspl.runs.yaml_text import parse_yaml

CONFIGS = (".yaml", ".yml")  # Read for the files that they name in turn


def files_named(config: Any, beside: Path) -> Iterator[Path]:
    """Yield the files that the texts of a configuration name, from the current folder or beside the configuration."""
    if isinstance(config, Mapping):
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from files_named(each, beside)
    elif isinstance(config, str):
        for path in (Path(config), beside / config):
            try:
                path = path.expanduser()
                if path.is_file():
                    yield path
            except (OSError, RuntimeError, ValueError):  # A text, as that of a prompt, that can be no path
                continue


def with_included(files: Iterable[Path]) -> list[Path]:
    """Return files with those that configurations among them name, and so on, each once."""
    found: dict[Path, None] = {}
    for file in files:
        _add(file, found)
    return list(found)


def _add(file: Path, found: dict[Path, None]) -> None:
    if file in found:
        return
    found[file] = None
    if file.suffix in CONFIGS:
        try:
            content = parse_yaml(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError):  # The command that reads it says what is wrong
            return
        for each in files_named(content, file.parent):
            _add(each, found)


def configs_in(arguments: Sequence[str]) -> list[str]:
    """Return the configuration files that the words of a command name, and those that they include."""
    values = [value for each in arguments for value in (each, each.partition("=")[2])]
    files = [file for value in values if value for file in files_named(value, Path())]
    given = [file for file in files if file.suffix in CONFIGS]
    return list(dict.fromkeys(str(file) for file in with_included(given) if file.suffix in CONFIGS))
