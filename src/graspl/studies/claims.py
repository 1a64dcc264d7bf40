"""Claims of a study's folder and of single fits, so that processes that run a study together do no fit twice."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from graspl.errors import GrasplError
from graspl.runs import claimed

PART = ".part."  # And a token: held by each process that runs a part of the study
WAIT = 60.0  # Seconds for which another process may keep the folder to itself while it enters it


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep a study's folder for this process alone within the block.

    Raises:
        GrasplError: another process has it, or runs a part of the study.
    """
    with claimed(out, "out"):
        for each in out.glob(f"{PART}*"):
            _remove_unless_held(each, out)
        yield


def _remove_unless_held(path: Path, out: Path) -> None:
    try:
        with FileLock(path, timeout=0):
            path.unlink(missing_ok=True)
    except Timeout as error:
        fix = "wait for it, or give another folder"
        raise GrasplError(f"out: another process runs a part of the study in {out}; {fix}") from error


@contextmanager
def entered(out: Path) -> Iterator[None]:
    """Keep a study's folder within the block, which takes moments; wait for others that do the same."""
    with claimed(out, "out", wait=WAIT):
        yield


@contextmanager
def beside_others(out: Path) -> Iterator[None]:
    """Let this process run a part of a study within the block: others may do so too, and none may have it alone.

    Raises:
        GrasplError: another process has the folder alone.
    """
    path = out / f"{PART}{secrets.token_hex(4)}"
    lock = FileLock(path)
    with entered(out):
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def fit_claimed(folder: Path, wait: float) -> Iterator[bool]:
    """Keep a fit for this process within the block, and yield whether it could be had.

    The claim ends with the process, however it ends, and lies beside the fit's folder, which may be removed and begun again.

    Args:
        folder: of the fit.
        wait: seconds for which another process may still have it.
    """
    path = folder.with_name(f".{folder.name}.claimed")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        lock.release()
