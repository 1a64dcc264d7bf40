"""Files that are whole or absent: each is written under a temporary name and renamed."""

import csv
import ctypes
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from graspl.errors import GrasplError, foreign
from graspl.runs.forms import Form, is_number, misfit

ANY: Form = {}  # The form of any mapping
LARGEST = 2**30  # Bytes of a file of text that is read as a whole; what graspl writes is far smaller

if sys.platform != "win32":
    import fcntl

SCRATCH = re.compile(
    r"\.(.+)\.[a-z0-9_]{8}"
)  # A folder for temporary names, with the name that is written in it


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path (file or folder) beside ``path`` and rename it to ``path`` on success.

    Nothing is left behind when the block raises. An old file or folder is replaced; missing parents are made. What a process
    that was killed here left in the same folder is removed.

    Raises:
        GrasplError: the place cannot be written (permissions, full disk, a file where a folder must be).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(path.parent)
        scratch, hold = _held_scratch(path)
    except OSError as error:
        raise GrasplError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        target = scratch / path.name
        yield target
        _share(target)
        if path.is_dir():
            _exchange(target, path)
        else:
            target.replace(path)
    except OSError as error:
        fix = "free some space or choose another folder"
        raise GrasplError(f"{path}: writing failed ({error.strerror or error}); {fix}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(hold)


def _held_scratch(path: Path) -> tuple[Path, int]:
    """Make a folder for temporary names, locked as long as the descriptor is open: it is not a left over one."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        hold = os.open(scratch if sys.platform != "win32" else os.devnull, os.O_RDONLY)
        if (
            _locked(hold, wait=True) and not scratch.exists()
        ):  # Taken for a left over one before it was locked
            os.close(hold)
            continue
        return scratch, hold


def remove_left_over(folder: Path) -> None:
    """Remove what processes that were killed left in a folder under temporary names; of others, nothing."""
    if sys.platform == "win32":  # It cannot be told whether the process lives
        return
    for scratch in folder.glob(".*.*"):
        found = SCRATCH.fullmatch(scratch.name)
        if found is None or scratch.is_symlink() or not scratch.is_dir():
            continue
        name = found[1]
        # Safetensors writes its files under `.tmp`
        inside = {each.name for each in scratch.iterdir() if not each.name.startswith(".tmp")}
        if inside <= {name, f"{name}.old"}:
            _remove_unless_held(scratch, folder / name)


def _remove_unless_held(scratch: Path, path: Path) -> None:
    try:
        hold = os.open(scratch, os.O_RDONLY)
    except OSError:  # Gone by now
        return
    try:
        if _locked(hold, wait=False):
            if (scratch / f"{path.name}.old").exists() and not path.exists():  # Killed within `_exchange`
                (scratch / path.name).rename(path)
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(hold)


def _locked(hold: int, *, wait: bool) -> bool:
    """Lock an open folder, and return whether that was possible; some file systems lock none."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(hold, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _exchange(new: Path, old: Path) -> None:
    """Put one folder in another's place, which takes its own, in one step of the file system where it has such a step.

    Without one, the old folder is gone for an instant, as Python can only rename a folder onto an empty one.
    """
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if swap is not None:
        here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        if swap(here, os.fsencode(new), here, os.fsencode(old), both) == 0:
            return
    aside = new.with_name(f"{new.name}.old")
    old.rename(aside)
    new.rename(old)


def _share(path: Path) -> None:
    """Give files the permissions that a file opened here would have; safetensors makes them for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            file.chmod(0o666 & ~mask)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as scratch, scratch.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json_atomic(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON with NaN refused, atomically."""
    write_text_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_json_lines_atomic(path: Path, rows: Iterable[Any]) -> None:
    """Write one row a line, atomically."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_text_atomic(path, "".join(lines))


def read_json_lines(path: Path, fix: str, form: Form = ANY) -> list[dict[str, Any]]:
    """Return the rows of a file that graspl wrote; [] without the file. `fix` tells how to make it again.

    `form` is that of a row, see `graspl.runs.forms`.
    """
    if not path.exists():
        return []
    _check_file(path)
    with foreign(path, "a line is not JSON", fix):
        lines = path.read_text(encoding="utf-8").split("\n")  # Text may hold other line breaks, as U+2028
        rows = [_parse(line) for line in lines if line.strip()]
    for place, row in enumerate(rows, start=1):
        wrong = misfit(row, form)
        if wrong is not None:
            raise GrasplError(f"{path}: row {place}: {wrong}; {fix}")
    return rows


def read_json(path: Path, what: str, fix: str, form: Form = object) -> Any:
    """Return the content of a file that graspl wrote; `fix` tells how to make it again, `form` is that of the content."""
    if path.exists():
        _check_file(path)
    with foreign(path, "not readable as JSON", fix):
        try:
            content = _parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise GrasplError(f"{path}: no {what} there; {fix}") from error
    wrong = misfit(content, form)
    if wrong is not None:
        raise GrasplError(f"{path}: {wrong}; {fix}")
    return content


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def _finite(text: str) -> float:
    value = float(text)
    return value if is_number(value) else _refuse(text)


def _refuse(text: str) -> float:
    raise ValueError(f"{text[:20]} is no number that graspl writes")


def _check_file(path: Path) -> None:
    """Refuse what is no file, since reading a pipe would wait for ever, and what is too large to be read as a whole."""
    if not path.is_file():
        raise GrasplError(f"{path}: is no file; remove it and make it again")
    size = path.stat().st_size
    if size > LARGEST:
        raise GrasplError(
            f"{path}: has {size} bytes, more than the {LARGEST} that graspl reads; make it again"
        )


def read_numbers(path: Path) -> list[dict[str, float]]:
    """Return the rows of a CSV file of numbers, without empty cells, and without a last row that was cut off."""
    _check_file(path)
    with foreign(path, "a cell is not a number", "fit again"):
        with path.open(newline="", encoding="utf-8") as file:
            lines = file.readlines()
        rows = list(csv.DictReader(line for line in lines if line.endswith("\n")))
        return [{key: float(cell) for key, cell in row.items() if key and cell} for row in rows]


@contextmanager
def claimed(folder: Path, option: str = "trainer.default_root_dir", *, wait: float = 0.0) -> Iterator[None]:
    """Make a folder and keep it for this process within the block; the claim ends with the process, however it ends.

    What a process that was killed left under temporary names, in it or one level below, is removed.

    Args:
        folder: whose files no other process is to write.
        option: by which the user gave it, for messages.
        wait: seconds for which another process may still have it.

    Raises:
        GrasplError: another process has the folder, or it cannot be written.
    """
    path = folder / ".claimed"
    lock = FileLock(path, timeout=wait)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        fix = "wait for it, or give another folder"
        raise GrasplError(f"{option}: another process is writing to {folder}; {fix}") from error
    except OSError as error:
        fix = "give another folder"
        raise GrasplError(f"{option}: {folder} cannot be written ({error.strerror}); {fix}") from error
    try:
        remove_left_over(folder)
        for each in filter(Path.is_dir, list(folder.iterdir())):
            remove_left_over(each)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # One that holds files stays, and so do its parents
            for each in made:
                each.rmdir()
