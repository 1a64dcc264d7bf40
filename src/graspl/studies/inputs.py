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
    return {file.name if file.is_absolute() else str(file): sha256_of(file) for file in outside}


def _add(file: Path, found: dict[Path, None]) -> None:
    if file in found:
        return
    found[file] = None
    if file.suffix in CONFIGS:
        for each in _named(yaml.safe_load(file.read_text(encoding="utf-8")), file.parent):
            _add(each, found)


def _named(config: Any, beside: Path) -> Iterator[Path]:
    """Yield the files that the texts of a configuration name, from the current folder or beside the configuration."""
    if isinstance(config, Mapping):
        config = list(config.values())
    if isinstance(config, list):
        for each in config:
            yield from _named(each, beside)
    elif isinstance(config, str) and 0 < len(config) < 512 and "\n" not in config:
        yield from (path for path in (Path(config).expanduser(), beside / config) if path.is_file())
