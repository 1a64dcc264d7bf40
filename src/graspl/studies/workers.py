"""Fits in worker processes: what is not there is run, and one that fails does not stop the rest."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context, parent_process
from threading import Thread

from graspl.errors import users_mistake
from graspl.studies.plan import Fit


def run_fits(fits: Sequence[Fit], *, jobs: int) -> Iterator[tuple[Fit, str | None]]:
    """Run fits and yield each when it has ended, with None or what went wrong.

    Args:
        fits: that are not done.
        jobs: worker processes; the machine's cores are shared among them.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # A forked process would inherit torch's threads in an unknown state
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start, (threads,)) as pool:
        running = {pool.submit(_run, fit): fit for fit in fits}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(threads: int) -> None:
    import lightning.pytorch  # noqa: F401 - its import sets the level of its loggers
    import torch
    from transformers.utils.logging import disable_progress_bar

    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _end_with_parent() -> None:
    """End this process when the study's is killed, or it would go on writing where the next study begins."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(fit: Fit) -> str | None:
    """Run one fit, all that it prints in its log, and return what went wrong."""
    from graspl.training_cli import GrasplCLI

    sys.argv = ["graspl", *fit.prepare()]
    with fit.log.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        logger = logging.getLogger("graspl")
        logger.handlers, logger.propagate = [logging.StreamHandler(log)], False
        logger.setLevel(logging.INFO)
        try:
            GrasplCLI()
            fit.mark_done()
        except Exception as error:  # noqa: BLE001 - told in one line, with the whole story in the log
            traceback.print_exc()
            return users_mistake(error) or f"{type(error).__name__}: {error}; see {fit.log}"
    return None
