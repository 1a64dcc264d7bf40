"""Fits in worker processes: missing ones are run, and a failed one does not stop the rest."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_all_start_methods, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar

from graspl.errors import GrasplError, users_mistake
from graspl.studies.plan import Fit

log = logging.getLogger(__name__)


class Step(Protocol):
    """One fit or validation, as a worker runs it; `graspl.studies.plan.Fit` is one."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def log(self) -> Path:
        """The file with its output."""
        ...

    def is_done(self) -> bool:
        """Whether it ended well."""
        ...

    def prepare(self) -> list[str]:
        """Write what it needs, and return the arguments of `graspl` that run it."""
        ...

    def mark_done(self, seconds: float) -> None:
        """Record that it ended well, after so many seconds."""
        ...


S = TypeVar("S", bound=Step)


def run_missing(fits: Sequence[Fit], jobs: int, what: str) -> dict[str, str]:
    """Run the fits that are not done, log the progress, and return the reason by name of each fit that failed."""
    missing = [each for each in fits if not each.is_done()]
    log.info("%d %s, %d of them done already", len(fits), what, len(fits) - len(missing))
    if missing:
        log.info("the output of each fit is beside its folder, e.g. %s", missing[0].log)
    # Fits that others are made from come first
    waves = [[each for each in missing if bool(each.made_from) is last] for last in (False, True)]
    ended = (result for wave in waves if wave for result in run_fits(wave, jobs=jobs))
    failed, began = {}, time.monotonic()
    for done, (each, error) in enumerate(ended, start=1):
        left = (time.monotonic() - began) / done * (len(missing) - done) / 60
        state = "done" if error is None else f"failed: {error}"
        log.info("[%d/%d, %.0f min left] %s: %s", done, len(missing), left, each.name, state)
        if error is not None:
            failed[each.name] = error
    return failed


def run_fits(fits: Sequence[S], *, jobs: int) -> Iterator[tuple[S, str | None]]:
    """Run fits in worker processes and yield each when it ends, with None or the reason why it failed."""
    import torch

    # What torch would take here: fewer where OMP_NUM_THREADS or the process' own cores allow fewer
    threads = max(1, torch.get_num_threads() // jobs)
    # Forked from a process that has only imported: this one's torch threads would be in an unknown state
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(["graspl.training_cli"])
    with ProcessPoolExecutor(jobs, context, _start, (threads, dict(os.environ))) as pool:
        running = {pool.submit(_run, fit): fit for fit in fits}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            fix = "run the same command again, perhaps with fewer jobs; what is done is kept"
            raise GrasplError(
                f"jobs: the system killed a process, perhaps for want of memory; {fix}"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(threads: int, environment: dict[str, str]) -> None:
    import lightning.pytorch  # noqa: F401 - its import sets the level of its loggers
    import torch
    from transformers.utils.logging import disable_progress_bar

    os.environ.update(environment)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _end_with_parent() -> None:
    """End this process with the study's, or it would write where the next study begins."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(fit: Step) -> str | None:
    """Run one fit with its output in its log, and return the reason if it failed."""
    from graspl.training_cli import GrasplCLI

    sys.argv = ["graspl", *fit.prepare()]
    with fit.log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        logger = logging.getLogger("graspl")
        logger.handlers, logger.propagate = [logging.StreamHandler(file)], False
        logger.setLevel(logging.INFO)
        began = time.monotonic()
        try:
            GrasplCLI()
            fit.mark_done(time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - the log has the traceback
            traceback.print_exc()
            return users_mistake(error) or f"{type(error).__name__}: {error}; see {fit.log}"
    return None
