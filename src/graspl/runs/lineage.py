"""What each result of a run was made from, so that no figure stands beside other weights or rows.

`lineage.json` in the run folder has an entry for each result: the SHA-256 of its files, and of the files that it was made
from. A result counts only while all of them are as they were.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graspl import __version__
from graspl.errors import GrasplError
from graspl.runs.digests import Digester, model_folder, revision
from graspl.runs.files import read_json, write_json_atomic
from graspl.runs.folder import RunFolder
from graspl.runs.given import given

MODELS = ("base model", "judging model")  # A name under them may be one of the hub's
SETTINGS = "configuration file"  # One that a command was given, or that such a file includes
FIT = "fit"  # Its `config.yaml` holds all settings, so the files that it was given may change
Sources = Mapping[str, Iterable[str | Path]]  # Files, folders and names by what they are


class Lineage:
    """The record of what a run's results were made from.

    Args:
        run: the run folder, or another folder with results.
        digester: hashes the files; with one, every file and the record are read once, for a reader that takes no time.
    """

    def __init__(self, run: RunFolder, digester: Digester | None = None) -> None:
        self.run, self.path = run, run.lineage
        self._digester = digester
        self._entries: dict[str, Any] | None = None  # Once read, where there is a digester

    @contextmanager
    def writing(self, results: Sequence[Path], made_from: Sources) -> Iterator[None]:
        """Write results within the block: they count as started until it ends, and are then recorded.

        Results that were there before count on, until they are replaced.
        """
        entries = self.read()
        for result in results:
            before = entries.get(result.name, {"graspl": __version__, "files": {}, "made_from": {}})
            entries[result.name] = before | {"status": "started"}
        self._write(entries)
        yield
        self.record(results, made_from)

    def record(self, results: Iterable[Path], made_from: Sources) -> None:
        """Record results that were just written, and what they were made from.

        Args:
            results: files or folders in the run folder.
            made_from: files and folders by what they are, e.g. `adapter`. A name that is neither, as of a model on the hub
                that is not in its cache, is recorded alone.
        """
        entries, results, command, hashing = self.read(), list(results), given(), Digester()
        early = {} if command is None else command.as_read
        made = {label: [self._name(each) for each in every] for label, every in made_from.items()}
        settings = [] if command is None else self._settings(command.configs, made)
        if settings and command is not None and command.command != FIT:
            made[SETTINGS] = settings

        def digests(label: str, name: str) -> dict[str, Any]:
            place = self._place(name, label)
            return early.get(place.resolve()) or hashing.digests(place)

        content: dict[str, Any] = {
            "graspl": __version__,
            "status": "complete",
            "made_from": {
                label: {each: digests(label, each) for each in every} for label, every in made.items()
            },
        }
        revisions = {
            each: found
            for each in (name for label in MODELS for name in made.get(label, []))
            if (found := revision(each)) is not None
        }
        content |= {"revisions": revisions} if revisions else {}
        if command is not None:
            content["settings"] = {"command": command.command, "sha256": command.settings}
        if settings and SETTINGS not in made:
            content["given"] = {each: digests(SETTINGS, each) for each in settings}
        for result in results:
            entries[result.name] = {**content, "files": hashing.digests(result)}
            early.pop(result.resolve(), None)  # Further results are made from the new one
        self._write(entries)

    def remember(self, sources: Iterable[str | Path]) -> None:
        """Keep the digests of files and folders as they are now, before a command reads them, for `record`."""
        command, hashing = given(), Digester()
        if command is None:
            return
        for each in sources:
            place = model_folder(str(each))
            if place.exists() and place.resolve() not in command.as_read:
                command.as_read[place.resolve()] = hashing.digests(place)

    def read(self) -> dict[str, Any]:
        """Return the entries by the result's name; {} without a record.

        Raises:
            GrasplError: the file is broken, or was changed by hand.
        """
        if self._entries is not None:
            return self._entries
        if not self.path.exists():
            return {}
        found = read_json(self.path, "lineage", "validate again")
        entries = found.get("results") if isinstance(found, dict) else None
        if not isinstance(entries, dict) or not all(_is_entry(each) for each in entries.values()):
            raise GrasplError(f"{self.path}: is not what graspl wrote; remove it and validate again")
        if found != _signed(entries):
            raise GrasplError(f"{self.path}: was changed after graspl wrote it; remove it and validate again")
        self._entries = entries if self._digester is not None else None
        return entries

    def complaint(self, result: Path) -> str | None:
        """Return why a result cannot be trusted, in one line; None where it is as it was made, or is not there."""
        if not result.exists():
            return None
        entry, hashing = self.read().get(result.name), self._digester or Digester()
        if entry is None:
            return "has no record of what it was made from"
        changed = hashing.changed(entry["files"], result)
        if entry["status"] == "started" and (changed is not None or not entry["files"]):
            return "was started and never completed"
        if changed is not None:
            return f"is not as it was written ({changed})"
        for label, sources in entry["made_from"].items():
            for name, digests in sources.items():
                wrong = self._complaint_of_source(label, name, digests, hashing)
                if wrong is not None:
                    return wrong
        return None

    def _complaint_of_source(
        self, label: str, name: str, digests: Mapping[str, Any], hashing: Digester
    ) -> str | None:
        """Return the complaint about one source: another one now, or itself a result that cannot be trusted."""
        place = self._place(name, label)
        inside = self._is_inside(place)
        if place.exists() or inside:
            changed = hashing.changed(digests, place, new_counts=place.parent.name != "snapshots")
            if changed is not None:
                return f"was made from another {label} ({name}: {changed})"
        if not inside:
            return None
        here = self._digester is not None and place.parent == self.run.path
        theirs = self if here else Lineage(RunFolder(place.parent), hashing)
        found = theirs.complaint(place) if place.name in theirs.read() else None
        return None if found is None else f"was made from {place.name}, which {found}"

    def unchecked(self, result: Path) -> list[str]:
        """Return the sources of a result that are not on this machine."""
        made_from = self.read().get(result.name, {"made_from": {}})["made_from"]
        named = [(label, name) for label, sources in made_from.items() for name in sources]
        return [name for label, name in named if not self._place(name, label).exists()]

    def notes(self, result: Path) -> list[str]:
        """Return the configuration files that a fit was given and that have changed since, which change no figure."""
        entry, hashing = self.read().get(result.name, {}), self._digester or Digester()
        files = [(name, self._place(name), digests) for name, digests in entry.get("given", {}).items()]
        return [name for name, place, digests in files if place.exists() and hashing.changed(digests, place)]

    def _settings(self, configs: Iterable[str], made: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the names of configuration files that are not named as something else."""
        others = {each for every in made.values() for each in every}
        return [
            name for name in map(self._name, configs) if name not in others and self._place(name).exists()
        ]

    def _write(self, entries: dict[str, Any]) -> None:
        write_json_atomic(self.path, _signed(entries))

    def _is_inside(self, place: Path) -> bool:
        return place.resolve().is_relative_to(self.run.path.resolve())

    def _name(self, source: str | Path) -> str:
        """Return a source as it is recorded: within the run folder relative to it, so that the folder can be moved."""
        place = Path(source).expanduser()
        if place.exists() and self._is_inside(place):
            return f"./{place.resolve().relative_to(self.run.path.resolve())}"
        return str(place) if str(source).startswith("./") else str(source)

    def _place(self, name: str, label: str = "") -> Path:
        if name.startswith("./"):
            return self.run.path / name
        return model_folder(name) if label in MODELS else Path(name).expanduser()


def _signed(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the file's content, with its own SHA-256."""
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
    return {"results": entries, "sha256": digest}


def _is_entry(each: Any) -> bool:
    """Whether an entry has the form that `record` gives it."""
    if not isinstance(each, dict) or not isinstance(each.get("made_from"), dict):
        return False
    if each.get("status") not in ("started", "complete"):
        return False
    several = [*each["made_from"].values(), each.get("given", {})]
    groups = [each.get("files"), *(found for every in several for found in _values(every))]
    return all(isinstance(group, dict) and all(_is_digest(one) for one in group.values()) for group in groups)


def _values(each: Any) -> list[Any]:
    return list(each.values()) if isinstance(each, dict) else [None]


def _is_digest(each: Any) -> bool:
    kinds = {"sha256": str, "size": int, "changed": int}
    return isinstance(each, dict) and all(isinstance(each.get(name), kind) for name, kind in kinds.items())
