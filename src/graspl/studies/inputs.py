"""The files that a fit's configuration names, so that a study notices when one of them changes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from graspl.runs.lineage import sha256_of

CONFIGS = (".yaml", ".yml")  # Read for the files that they name in turn


def inputs_of(base: Path, config: Any, made: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file that a fit reads, by its path; of an absolute path by its last part.

    Args:
        base: configuration that all fits share.
        config: what this fit changes, filled in.
        made: folders of other fits of the study, whose files are left out: they are made by it.
    """
    found: dict[Path, None] = {}
    for file in [base, *_named(config, Path())]:
        _add(file, found)
    ours = [folder.resolve() for folder in made.values()]
    outside = (file for file in found if not any(file.resolve().is_relative_to(each) for each in ours))
    digests: dict[str, str] = {}
    for file in outside:
        name = file.name if file.is_absolute() else str(file)
        # Of two with one name, both count
        digests[name] = digests.get(name, "") + sha256_of(file)
    return digests


def _add(file: Path, found: dict[Path, None]) -> None:
    if file in found:
        return
    found[file] = None
    if file.suffix in CONFIGS:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):  # The fit that reads it says what is wrong
            return
        for each in _named(content, file.parent):
            _add(each, found)


def _named(config: Any, beside: Path) -> Iterator[Path]:
    """Yield the files that the texts of a configuration name, from the current folder or beside the configuration."""
    if isinstance(config, Mapping):
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _named(each, beside)
    elif isinstance(config, str):
        for path in (Path(config), beside / config):
            try:
                path = path.expanduser()
                if path.is_file():
                    yield path
            except (OSError, RuntimeError):  # A text, as that of a prompt, that can be no path
                continue
