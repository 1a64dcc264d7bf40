"""One fit or validation, run in this process or, on several devices, in processes of its own."""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol, TextIO

from graspl.errors import GrasplError, users_mistake
from graspl.runs import parse_yaml
from graspl.studies.claims import fit_claimed
from graspl.studies.gpus import devices_of
from graspl.studies.methods import merged, settings_of_trainer
from graspl.studies.plan import Fit

CONFIG = "--config="
ERROR = "graspl: error: "  # So does the command line begin what it says of a mistake
ELSEWHERE = "another process runs it"
GRACE = 60.0  # Seconds that a fit on several devices has to end by itself after an interrupt
_apart: list["subprocess.Popen[bytes]"] = []  # Those that run now


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


def make_quiet(threads: int) -> None:
    """Limit torch's threads in this process, and stop libraries from writing to the terminal."""
    import lightning.pytorch  # noqa: F401 - its import sets the level of its loggers
    import torch
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(threads)
    disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def run_step(step: Step) -> str | None:
    """Run a step with its output in its log, and return the reason if it failed."""
    from graspl.training_cli import GrasplCLI

    arguments = step.prepare()
    sys.argv = ["graspl", *arguments]
    with step.log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        logger = logging.getLogger("graspl")
        logger.handlers, logger.propagate = [logging.StreamHandler(file)], False
        logger.setLevel(logging.INFO)
        began = time.monotonic()
        try:
            if on_several_devices(arguments):
                run_apart(arguments, file, step.log)
            else:
                GrasplCLI()
            step.mark_done(time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - the log has the traceback
            traceback.print_exc()
            return users_mistake(error) or f"{type(error).__name__}: {error}; see {step.log}"
    return None


def run_claimed(fit: Fit, wait: float = 0.0) -> str | None:
    """Run a fit that other processes may run too, unless one of them has it or has done it.

    Args:
        fit: the fit.
        wait: seconds for which another process may still have it.

    Returns:
        `ELSEWHERE` where another process has it; else as `run_step`.
    """
    with fit_claimed(fit.folder, wait) as ours:
        if not ours:
            return ELSEWHERE
        return None if fit.is_done() else run_step(fit)


def on_several_devices(arguments: Sequence[str]) -> bool:
    """Whether a command would run on more than one device: Lightning then starts further processes of the same command."""
    import torch

    return devices_of(trainer_of(arguments), torch.cuda.device_count()) > 1


def trainer_of(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Return the trainer's settings in the configurations that a command is given."""
    settings: dict[str, Any] = {}
    for each in arguments:
        if each.startswith(CONFIG):
            content = parse_yaml(Path(each.removeprefix(CONFIG)).read_text(encoding="utf-8"))
            settings = merged(settings, settings_of_trainer(content))
    return settings


def run_apart(arguments: Sequence[str], output: TextIO, log: Path) -> None:
    """Run a command of graspl as the command line would, until it ends.

    Raises:
        GrasplError: it failed.
    """
    # Under Slurm, Lightning would wait for processes that only srun starts
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    began = log.stat().st_size
    process = subprocess.Popen(
        [sys.executable, "-m", "graspl", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,  # A group of its own, with the processes that Lightning starts
    )
    _apart.append(process)
    try:
        code = process.wait()
    except BaseException:
        _signal(process, signal.SIGINT)
        try:
            process.wait(GRACE)
        finally:
            end_apart()
        raise
    finally:
        _apart.remove(process)
    if code:
        lines = log.read_bytes()[began:].decode(errors="replace").splitlines()
        told = [each.removeprefix(ERROR) for each in lines if each.startswith(ERROR)]
        raise GrasplError(told[-1] if told else f"ended with exit code {code}; see {log}")


def end_apart() -> None:
    """End at once what `run_apart` runs in this process."""
    for each in _apart:
        _signal(each, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)
    except ProcessLookupError:  # Ended by now
        pass
