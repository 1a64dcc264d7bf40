"""`run.json`: which commands ran in a folder, and how each ended."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from graspl import __version__
from graspl.errors import GrasplError, users_mistake
from graspl.runs.files import read_json, write_text_atomic
from graspl.runs.folder import RunFolder
from graspl.runs.given import given, hidden

Status = Literal["started", "complete", "interrupted", "failed"]
TEXTS = ("id", "command", "status", "start")
LIBRARIES = ("torch", "transformers", "peft", "lightning")
LOCK = ".running."  # And the command's id: held as long as its process lives
LONGEST_REASON = 500  # Characters


class RunFacts:
    """The record of the commands that ran in a folder: `run.json`.

    Args:
        folder: the run folder, or a study's.
        alone: keeps it for this process while it changes the record, where commands run there side by side.
    """

    def __init__(self, folder: Path, alone: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.folder, self.path, self._alone = folder, RunFolder(folder).facts, alone

    @contextmanager
    def command(self, name: str, seed: Any = None) -> Iterator[None]:
        """Record that a command starts, and how it ends.

        A process that is killed leaves `started`; its lock ends with it, so that a reader can tell. A command that fails in a
        folder that it made leaves no folder behind.

        Args:
            name: of the command.
            seed: of its random numbers; None where it draws none.
        """
        # A study's folder, made to be claimed, holds no more than the claim
        existed, entry = any(map(_is_shown, self.folder.glob("*"))), _entry(name, seed)
        lock = self._lock(entry["id"])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone():  # Others that begin look whether the lock is held
                lock.acquire()
        except OSError as error:
            raise GrasplError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        try:
            with self._alone():
                self._begin(entry)
            yield
        except BaseException as error:
            with suppress(GrasplError), self._alone():  # The command's own error counts
                self._end(entry, *_how(error))
            if not existed and isinstance(error, GrasplError):
                self._remove_if_alone(lock)
            raise
        else:
            with self._alone():
                self._end(entry, "complete", None)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def read(self) -> dict[str, Any]:
        """Return `status` and `commands`; {} without a record.

        `status` is how the last fit ended, or the last command where there was no fit.

        Raises:
            GrasplError: the record is broken, or was changed by hand.
        """
        if not self.path.exists():
            return {}
        found = read_json(self.path, "record", "remove it")
        commands = found.get("commands") if isinstance(found, dict) else None
        if not isinstance(commands, list) or not all(_is_entry(each) for each in commands):
            raise GrasplError(f"{self.path}: is not what graspl wrote; remove it")
        if self.path.read_bytes() != _text(commands).encode():
            raise GrasplError(f"{self.path}: was changed after graspl wrote it; remove it")
        return found

    def lines(self) -> list[str]:
        """Return one line for each command: what it was and how it ended."""
        return [f"{each['command']}: {self.how(each)}" for each in self.read().get("commands", [])]

    def how(self, entry: Mapping[str, Any]) -> str:
        """Return how a command ended, in a few words."""
        if entry["status"] == "started":
            known = {True: "running", False: "never ended", None: "not known whether it ended"}
            return f"started {entry['start']}, {known[self._is_running(entry['id'])]}"
        reason = f" ({entry['reason']})" if entry.get("reason") else ""
        return f"{entry['status']} {entry['end']}{reason}"

    def _begin(self, entry: dict[str, Any]) -> None:
        before = self.read().get("commands", [])
        for left in self.folder.glob(
            f"{LOCK}*"
        ):  # By processes that were killed, perhaps before they were recorded
            if self._is_running(left.name.removeprefix(LOCK)) is False:
                left.unlink(missing_ok=True)
        write_text_atomic(self.path, _text([*before, entry]))

    def _end(self, entry: dict[str, Any], status: Status, reason: str | None) -> None:
        """Record the end; nothing where the command took its folder away."""
        if not self.path.exists():
            return
        entry |= {"status": status, "reason": reason, "end": _now()}
        # Commands may run side by side, and two that start at once may lose an entry
        commands = {each["id"]: each for each in self.read()["commands"]} | {entry["id"]: entry}
        write_text_atomic(self.path, _text([*commands.values()]))

    def _remove_if_alone(self, lock: Any) -> None:
        if all(each == self.path for each in filter(_is_shown, self.folder.glob("*"))):
            for each in (self.path, Path(lock.lock_file)):
                each.unlink(missing_ok=True)
            with suppress(OSError):  # A claim is let go of after this
                self.folder.rmdir()

    def _lock(self, identity: str) -> Any:
        return FileLock(self.folder / f"{LOCK}{identity}", timeout=0)

    def _is_running(self, identity: str) -> bool | None:
        """Return whether the process of a command still holds its lock; None where this user may not look."""
        lock = self._lock(identity)
        if not Path(lock.lock_file).exists():
            return False
        try:
            with lock:
                return False
        except Timeout:
            return True
        except OSError:
            return None


def _entry(name: str, seed: Any) -> dict[str, Any]:
    command = given()
    return {
        "id": secrets.token_hex(4),
        "command": name,
        "arguments": [] if command is None else [*command.arguments],
        "status": "started",
        "reason": None,
        "start": _now(),
        "end": None,
        "seed": seed,
        "versions": {"graspl": __version__} | {library: _version(library) for library in LIBRARIES},
    }


def _text(commands: list[dict[str, Any]]) -> str:
    """Return the file's text, with its own SHA-256: a reader compares, so that no byte of it can be changed."""
    fits = [each for each in commands if each["command"] == "fit"]
    status = (fits or commands)[-1]["status"] if commands else "started"
    digest = hashlib.sha256(json.dumps(commands, sort_keys=True).encode()).hexdigest()
    return (
        json.dumps({"status": status, "commands": commands, "sha256": digest}, indent=2, allow_nan=False)
        + "\n"
    )


def _how(error: BaseException) -> tuple[Status, str | None]:
    """Return the status and the reason, in one line, of a command that an error ended."""
    # So does Lightning end a fit that was interrupted
    stopped = isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
    )
    if stopped:
        return "interrupted", None
    told = users_mistake(error) or f"{type(error).__name__}: {error}"
    return "failed", hidden(" ".join(told.split()))[:LONGEST_REASON]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_entry(each: Any) -> bool:
    """Whether an entry has the form that `command` gives it."""
    if not isinstance(each, dict) or not all(isinstance(each.get(name), str) for name in TEXTS):
        return False
    texts = [each.get(name) for name in ("reason", "end")]
    versions, arguments = each.get("versions"), each.get("arguments")
    return (
        all(isinstance(one, str | None) for one in texts)
        and isinstance(versions, dict)
        and isinstance(arguments, list)
        and each["id"].isalnum()
    )
