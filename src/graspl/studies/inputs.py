"""The files that a fit's configuration names, so that a study notices when one of them changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graspl.runs.digests import sha256_of
from graspl.runs.named import files_named, with_included


def inputs_of(base: Path, config: Any, made: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file that a fit reads, by its path; of an absolute path by its last part.

    Args:
        base: configuration that all fits share.
        config: what this fit changes, filled in.
        made: folders of other fits of the study, whose files are left out: they are made by it.
    """
    found = with_included([base, *files_named(config, Path())])
    ours = [folder.resolve() for folder in made.values()]
    outside = (file for file in found if not any(file.resolve().is_relative_to(each) for each in ours))
    digests: dict[str, str] = {}
    for file in outside:
        name = file.name if file.is_absolute() else str(file)
        # Of two with one name, both count
        digests[name] = digests.get(name, "") + sha256_of(file)
    return digests
