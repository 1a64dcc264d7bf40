"""SHA-256 of files and folders, and whether they are still as they were."""

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

# Of larger files the size and the time of the last change are compared first: hashing the weights of a large model would take
# minutes, in every report again
HASHED_ALWAYS = 2**26
# Files that a program reads because they lie in a model's folder; others, as a README, may come and go
READ_FROM_FOLDERS = (".json", ".jinja", ".safetensors", ".model", ".txt")
Digests = Mapping[
    str, Mapping[str, Any]
]  # SHA-256, size and time of change, by a file's path within its folder


class Digester:
    """Hashes each file once, which the results of one run share.

    Args:
        thorough: hash large files too, whose size and time of change are as they were.
    """

    def __init__(self, *, thorough: bool = False) -> None:
        self.thorough, self._known = thorough, dict[Path, str]()

    def digests(self, place: Path | None) -> dict[str, dict[str, Any]]:
        """Return SHA-256, size and time of change of a file, or of each file of a folder; {} where there is neither."""
        return {name: self._digest(file) for name, file in files_in(place)}

    def changed(self, digests: Digests, place: Path, *, new_counts: bool = True) -> str | None:
        """Return what differs from the recorded files, in a few words; None if nothing does.

        Args:
            digests: as recorded; nothing is compared where they are empty.
            place: the file or folder now.
            new_counts: whether a file that is new in a folder is a change.
        """
        if not digests:
            return None
        if not place.exists():
            return "missing"
        now = dict(files_in(place))
        for name, recorded in digests.items():
            if name not in now:
                return f"{name} is missing"
            if not self._is_the_same(now[name], recorded):
                return f"{name} has changed"
        new = [name for name in now if name not in digests and name.endswith(READ_FROM_FOLDERS)]
        return f"{new[0]} is new" if new and new_counts else None

    def _digest(self, file: Path) -> dict[str, Any]:
        stat = file.stat()
        return {"sha256": self._sha256(file), "size": stat.st_size, "changed": stat.st_mtime_ns}

    def _is_the_same(self, file: Path, recorded: Mapping[str, Any]) -> bool:
        stat = file.stat()
        if stat.st_size != recorded["size"]:
            return False
        unlikely = stat.st_size > HASHED_ALWAYS and stat.st_mtime_ns == recorded["changed"]
        return (unlikely and not self.thorough) or self._sha256(file) == recorded["sha256"]

    def _sha256(self, file: Path) -> str:
        place = file.resolve()
        if place not in self._known:
            self._known[place] = sha256_of(place)
        return self._known[place]


def files_in(place: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield a file, or the files of a folder, with their names in it; hidden ones are left out."""
    if place is not None and place.is_file():
        yield place.name, place
    elif place is not None and place.is_dir():
        for each in sorted(place.rglob("*")):
            if each.is_file() and not any(part.startswith(".") for part in each.relative_to(place).parts):
                yield str(each.relative_to(place)), each


def sha256_of(file: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def model_folder(name: str) -> Path:
    """Return the folder of a base model: the one named, that of the embedded organism, or a snapshot in the hub's cache.

    Where there is none, the name as a path, which does not exist then.
    """
    place = Path(name).expanduser()
    if name == "organism":  # As `graspl.adapters.resolve_base_model`, which this room may not import
        return Path(str(files("graspl") / "organism" / "default"))
    if place.exists() or place.is_absolute() or name.count("/") > 1 or name.startswith((".", "~")):
        return place
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except ValueError:  # No name that the hub could have
        return place
    return Path(cached).parent if isinstance(cached, str) else place


def revision(name: str) -> str | None:
    """Return the commit of a base model in the hub's cache; None for a folder, or one that is not there."""
    folder = model_folder(name)
    return folder.name if folder.parent.name == "snapshots" else None
