"""What each result of a run was made from, so that no figure stands beside other weights or rows.

`lineage.json` in the run folder has an entry for each result: the SHA-256 of its files, and of the files that it was made
from. A result counts only while all of them are as they were.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from graspl import __version__
from graspl.errors import GrasplError
from graspl.runs.files import read_json, write_json_atomic
from graspl.runs.folder import RunFolder

# Of larger files the size and the time of the last change are compared first: hashing the weights of a large model would take
# minutes, in every report again
HASHED_ALWAYS = 2**26
# Files that a program reads because they lie in a model's folder; others, as a README, may come and go
READ_FROM_FOLDERS = (".json", ".jinja", ".safetensors", ".model", ".txt")


class Lineage:
    """The record of what a run's results were made from.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run, self.path = run, run.lineage

    def record(self, results: Iterable[Path], made_from: Mapping[str, Iterable[str | Path]]) -> None:
        """Record results that were just written, and what they were made from.

        Args:
            results: files or folders in the run folder.
            made_from: files and folders by what they are, e.g. `adapter`. A name that is neither, as of a model on the hub,
                is recorded alone.
        """
        entries = self.read()
        sources = {
            label: {self._name(each): self._digests(self._place(self._name(each))) for each in every}
            for label, every in made_from.items()
        }
        for result in results:
            entries[result.name] = {
                "graspl": __version__,
                "files": self._digests(result),
                "made_from": sources,
            }
        write_json_atomic(self.path, entries)

    def read(self) -> dict[str, Any]:
        """Return the entries by the result's name; {} without a record.

        Raises:
            GrasplError: the file is broken.
        """
        if not self.path.exists():
            return {}
        entries = read_json(self.path, "lineage", "validate again")
        if not isinstance(entries, dict) or not all(_is_entry(each) for each in entries.values()):
            raise GrasplError(f"{self.path}: is not what graspl wrote; remove it and validate again")
        return entries

    def complaint(self, result: Path) -> str | None:
        """Return why a result cannot be trusted, in one line; None where it is as it was made, or is not there."""
        if not result.exists():
            return None
        entry = self.read().get(result.name)
        if entry is None:
            return "has no record of what it was made from"
        changed = self._changed(entry["files"], result)
        if changed is not None:
            return f"is not as it was written ({changed})"
        for label, sources in entry["made_from"].items():
            for name, digests in sources.items():
                place = self._place(name)
                if place.exists() or self._is_inside(place):
                    changed = self._changed(digests, place)
                    if changed is not None:
                        return f"was made from another {label} ({name}: {changed})"
        return self._complaint_of_sources(entry)

    def _complaint_of_sources(self, entry: Mapping[str, Any]) -> str | None:
        """Return the complaint about the first of a result's sources that is itself a result of this run."""
        entries = self.read()
        for sources in entry["made_from"].values():
            for name in sources:
                place = self._place(name)
                if self._is_inside(place) and place.name in entries:
                    found = self.complaint(place)
                    if found is not None:
                        return f"was made from {place.name}, which {found}"
        return None

    def unchecked(self, result: Path) -> list[str]:
        """Return the sources of a result that are not on this machine."""
        entry = self.read().get(result.name, {"made_from": {}})
        names = [name for sources in entry["made_from"].values() for name in sources]
        return [name for name in names if not self._place(name).exists()]

    def _is_inside(self, place: Path) -> bool:
        return place.resolve().is_relative_to(self.run.path.resolve())

    def _name(self, source: str | Path) -> str:
        """Return a source as it is recorded: within the run folder relative to it, so that the folder can be moved."""
        place = Path(source).expanduser()
        if self._is_inside(place):
            return f"./{place.resolve().relative_to(self.run.path.resolve())}"
        return str(source)

    def _place(self, name: str) -> Path:
        return self.run.path / name if name.startswith("./") else Path(name).expanduser()

    def _digests(self, place: Path) -> dict[str, Any]:
        """Return SHA-256, size and time of change of each file, by its path within a folder."""
        return {name: _digest(file) for name, file in _files(place)}

    def _changed(self, digests: Mapping[str, Any], place: Path) -> str | None:
        """Return what differs from the recorded files, in a few words; None if nothing does."""
        if not digests:
            return None
        if not place.exists():
            return "missing"
        now = dict(_files(place))
        for name, recorded in digests.items():
            if name not in now:
                return f"{name} is missing"
            if not _is_the_same(now[name], recorded):
                return f"{name} has changed"
        new = [name for name in now if name not in digests and name.endswith(READ_FROM_FOLDERS)]
        return f"{new[0]} is new" if new else None


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield a file, or the files of a folder, with their names in it."""
    if place.is_file():
        yield place.name, place
    elif place.is_dir():
        for each in sorted(place.rglob("*")):
            if each.is_file() and not any(part.startswith(".") for part in each.relative_to(place).parts):
                yield str(each.relative_to(place)), each


def _digest(file: Path) -> dict[str, Any]:
    stat = file.stat()
    large = stat.st_size > HASHED_ALWAYS
    digest = _sha256_once(str(file.resolve()), stat.st_size, stat.st_mtime_ns) if large else sha256_of(file)
    return {"sha256": digest, "size": stat.st_size, "changed": stat.st_mtime_ns}


@lru_cache(maxsize=1024)
def _sha256_once(file: str, _size: int, _changed: int) -> str:
    """Return a large file's SHA-256, computed once a process while its size and time of change stay."""
    return sha256_of(Path(file))


def _is_the_same(file: Path, recorded: Mapping[str, Any]) -> bool:
    stat = file.stat()
    if stat.st_size != recorded["size"]:
        return False
    if stat.st_size > HASHED_ALWAYS and stat.st_mtime_ns == recorded["changed"]:
        return True
    return sha256_of(file) == recorded["sha256"]


def sha256_of(file: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_entry(each: Any) -> bool:
    """Whether an entry has the form that `record` gives it."""
    if not isinstance(each, dict) or not isinstance(each.get("made_from"), dict):
        return False
    groups = [each.get("files"), *(found for every in each["made_from"].values() for found in _values(every))]
    return all(isinstance(group, dict) and all(_is_digest(one) for one in group.values()) for group in groups)


def _values(each: Any) -> list[Any]:
    return list(each.values()) if isinstance(each, dict) else [None]


def _is_digest(each: Any) -> bool:
    kinds = {"sha256": str, "size": int, "changed": int}
    return isinstance(each, dict) and all(isinstance(each.get(name), kind) for name, kind in kinds.items())
