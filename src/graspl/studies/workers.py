"""Fits in worker processes: missing ones are run, and a failed one does not stop the rest."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods, get_context, parent_process
from threading import Thread
from typing import Any, Protocol, TypeVar

from graspl.errors import GrasplError
from graspl.studies.gpus import VISIBLE, shared_out
from graspl.studies.plan import Fit
from graspl.studies.steps import ELSEWHERE, Step, end_apart, make_quiet, run_claimed, run_step

log = logging.getLogger(__name__)
S = TypeVar("S", bound=Step)
Run = Callable[[Sequence[Fit]], Iterator[tuple[Fit, str | None]]]


class Engine(Protocol):
    """What runs a study's fits."""

    def prepared(self, fits: Sequence[Fit]) -> Run:
        """Return a function that runs some of these fits and yields each when it ends, with None or why it failed.

        Raises:
            GrasplError: a fit asks for more than there is.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """Worker processes of this machine, each with GPUs of its own where there are some."""

    jobs: int = 1  # Fits at a time
    beside_others: bool = False  # Whether other processes run fits of the same study

    def prepared(self, fits: Sequence[Fit]) -> Run:
        """Return a function that runs some of these fits, see `Engine`."""
        shares = shared_out(fits, self.jobs)
        claims = {"run": run_claimed} if self.beside_others else {}
        return partial(run_fits, jobs=shares.jobs, gpus=shares.sets, **claims)


def run_missing(fits: Sequence[Fit], engine: Engine, what: str) -> dict[str, str]:
    """Run the fits that are not done, log the progress, and return the reason by name of each fit that failed."""
    missing = [each for each in fits if not each.is_done()]
    log.info("%d %s, %d of them done already", len(fits), what, len(fits) - len(missing))
    if missing:
        log.info("the output of each fit is beside its folder, e.g. %s", missing[0].log)
    run = engine.prepared(missing)
    # Fits that others are made from come first
    waves = [[each for each in missing if bool(each.made_from) is last] for last in (False, True)]
    ended = (result for wave in waves if wave for result in run(wave))
    failed, began = {}, time.monotonic()
    for done, (each, error) in enumerate(ended, start=1):
        left = (time.monotonic() - began) / done * (len(missing) - done) / 60
        state = "done" if error is None else error if error == ELSEWHERE else f"failed: {error}"
        log.info("[%d/%d, %.0f min left] %s: %s", done, len(missing), left, each.name, state)
        if error not in (None, ELSEWHERE):
            failed[each.name] = error
    return failed


def run_fits(
    fits: Sequence[S], *, jobs: int, gpus: Sequence[str] = (), run: Callable[[S], str | None] = run_step
) -> Iterator[tuple[S, str | None]]:
    """Run fits in worker processes and yield each when it ends, with None or the reason why it failed.

    Args:
        fits: in the order in which they begin.
        jobs: worker processes.
        gpus: CUDA_VISIBLE_DEVICES of each of them; where empty, all see what this process sees.
        run: what a process does with each.
    """
    import torch

    # What torch would take here: fewer where OMP_NUM_THREADS or the process' own cores allow fewer
    threads = max(1, torch.get_num_threads() // jobs)
    # Forked from a process that has only imported: this one's torch threads would be in an unknown state
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(["graspl.training_cli"])
    sets = None
    if gpus:
        sets = context.SimpleQueue()
        for each in gpus:
            sets.put(each)
    with ProcessPoolExecutor(jobs, context, _start, (threads, dict(os.environ), sets)) as pool:
        running = {pool.submit(run, fit): fit for fit in fits}
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


def _start(threads: int, environment: dict[str, str], gpus: Any) -> None:
    os.environ.update(environment)
    if gpus is not None:  # Before anything uses CUDA: each process takes a set, and none is put back
        os.environ[VISIBLE] = gpus.get()
    Thread(target=_end_with_parent, daemon=True).start()
    make_quiet(threads)


def _end_with_parent() -> None:
    """End this process with the study's, or it would write where the next study begins."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        end_apart()
        os._exit(1)
