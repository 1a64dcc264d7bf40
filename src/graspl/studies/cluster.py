"""Fits as tasks of Ray, on this machine or on many."""

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from graspl import __version__
from graspl.errors import GrasplError
from graspl.ranges import NonNegativeInt, PositiveInt
from graspl.studies.gpus import gpus_for
from graspl.studies.plan import Fit
from graspl.studies.steps import make_quiet, run_claimed
from graspl.studies.workers import Run

# Settings that a fit reads from the environment go with it to other machines, and no others
TAKEN_ALONG = ("GRASPL_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "OPENAI_", "WANDB_")
GRACE = 60.0  # Seconds that fits have to end by themselves after an interrupt
# Seconds after which a worker on a node that was lost, and may live on, has let go of its fit
LET_GO = 180.0
ANSWER = 300.0  # Seconds that a node has to start a worker and import graspl


@dataclass
class Ray:
    """How fits run on Ray."""

    address: str | None = None
    """A cluster's address, or `auto`; RAY_ADDRESS where None, and without it a cluster of this machine alone."""
    cpus: PositiveInt = 1
    """Cores of each fit."""
    gpus: float | None = None
    """GPUs of each fit, e.g. 0.5 for two fits on one; what its `trainer.devices` asks for where None."""
    retries: NonNegativeInt = 3
    """How often a fit is begun again, or goes on from its last checkpoint, when its worker is lost."""

    def __post_init__(self) -> None:
        gpus = self.gpus
        if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
            raise GrasplError(f"ray.gpus: {gpus} cannot be had; give a share below 1, or a whole number")


@contextmanager
def ray_engine(options: Ray, out: Path) -> Iterator["RayTasks"]:
    """Connect to Ray within the block, and yield an engine that runs fits there.

    Args:
        options: the cluster, and what each fit gets of it.
        out: the study's folder, which every node must see.

    Raises:
        GrasplError: Ray is not installed, or does not answer.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise GrasplError("engine: Ray is not installed; pip install 'graspl[ray]'") from error
    # Ray would tell its makers of every use
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        fix = "start one with `ray start`, or leave --ray.address out for this machine alone"
        asked = options.address or os.environ.get("RAY_ADDRESS") or "this machine"
        reason = " ".join(str(error).split())[:200]
        raise GrasplError(f"ray.address: no cluster answers at {asked} ({reason}); {fix}") from error
    try:
        yield RayTasks(ray, options, out)
    finally:
        ray.shutdown()


class RayTasks:
    """An engine whose fits are tasks of a Ray cluster (`graspl.studies.workers.Engine`)."""

    def __init__(self, ray: Any, options: Ray, out: Path) -> None:
        self.ray, self.options, self.out = ray, options, out

    def prepared(self, fits: Sequence[Fit]) -> Run:
        """Return a function that runs some of these fits, once every node that may run one has said that it can.

        Raises:
            GrasplError: no node has what a fit asks for, or one does not see the folder.
        """
        nodes = [each for each in self.ray.nodes() if each["Alive"]]
        most = int(max((_of(each, "GPU") for each in nodes), default=0))
        needs = {fit.name: self._gpus(fit, most) for fit in fits}
        able: dict[str, Any] = {}
        for name, gpus in needs.items():
            enough = {each["NodeID"]: each for each in nodes if self._is_enough(each, gpus)}
            if not enough:
                fix = "add a node, or give fewer by --ray.cpus and --ray.gpus"
                asked = f"{self.options.cpus} cores and {gpus:g} GPUs"
                raise GrasplError(f"ray: {name} asks for {asked}, and no node has so many; {fix}")
            able |= enough
        self._check(able)
        return partial(self._run, needs=needs)

    def _gpus(self, fit: Fit, most: int) -> float:
        return gpus_for(fit, most) if self.options.gpus is None else self.options.gpus

    def _is_enough(self, node: Mapping[str, Any], gpus: float) -> bool:
        return _of(node, "CPU") >= self.options.cpus and _of(node, "GPU") >= gpus

    def _check(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse nodes that do not see the study's folder: each looks for a file that was just made there."""
        if not nodes:
            return
        pinned = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        with tempfile.NamedTemporaryFile(prefix=".seen.", dir=self.out) as token:
            look = self.ray.remote(num_cpus=0, max_retries=0)(complaint)
            given = str(Path.cwd()), str(self.out / Path(token.name).name), __version__
            asked = {
                look.options(scheduling_strategy=pinned(node, soft=False)).remote(*given): each
                for node, each in nodes.items()
            }
            for reference, node in asked.items():
                where = f"ray: the worker on {node['NodeManagerHostname']}"
                try:
                    wrong = self.ray.get(reference, timeout=ANSWER)
                except self.ray.exceptions.RayError as error:
                    fix = "install graspl and what the study needs there"
                    reason = " ".join(str(error).split())[-200:]
                    raise GrasplError(f"{where} cannot run graspl ({reason}); {fix}") from error
                if wrong is not None:
                    raise GrasplError(f"{where} {wrong}")

    def _run(self, fits: Sequence[Fit], needs: Mapping[str, float]) -> Iterator[tuple[Fit, str | None]]:
        taken = {name: value for name, value in os.environ.items() if name.startswith(TAKEN_ALONG)}
        given = str(Path.cwd()), taken, self.options.cpus
        # A fit's own failure is returned, not raised: only a lost worker is a reason to try again
        task = self.ray.remote(
            num_cpus=self.options.cpus, max_retries=self.options.retries, retry_exceptions=False
        )(run_there)
        running = {task.options(num_gpus=needs[fit.name]).remote(fit, *given): fit for fit in fits}
        try:
            while running:
                ended, _ = self.ray.wait(list(running), num_returns=1)
                for reference in ended:
                    yield running[reference], self._outcome(reference)
                    del running[reference]
        except BaseException:
            self._cancel(list(running))
            raise

    def _cancel(self, running: Sequence[Any]) -> None:
        """Interrupt fits as Ctrl-C does in worker processes, and wait until they have ended."""
        for reference in running:
            self.ray.cancel(reference)
        if running:
            self.ray.wait(running, num_returns=len(running), timeout=GRACE)

    def _outcome(self, reference: Any) -> str | None:
        """Return what a task returned, or why there is nothing; raise what it raised."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            reason = " ".join(str(error).split())[:200]
            return f"its worker was lost {self.options.retries + 1} times ({type(error).__name__}: {reason})"


def _of(node: Mapping[str, Any], resource: str) -> float:
    return node["Resources"].get(resource, 0.0)


def complaint(here: str, token: str, version: str) -> str | None:
    """Return why fits cannot run in this process, in words; None where they can.

    Args:
        here: the folder that the study was started in.
        token: a file in the study's folder, which was just made.
        version: of the graspl that started the study.
    """
    file = Path(here) / token
    if not file.exists():
        return f"does not see {file.parent}; put the study on a disk that all nodes share"
    if version != __version__:
        return f"has graspl {__version__}, and the study has {version}; install the same one"
    return None


def run_there(fit: Fit, here: str, environment: Mapping[str, str], threads: int) -> str | None:
    """Run a fit as a task, in this process of Ray's, and return the reason if it failed.

    Args:
        fit: the fit.
        here: the folder that the study was started in.
        environment: variables that go with the fit.
        threads: for torch.
    """
    try:
        os.chdir(here)
    except OSError:
        return f"the worker on {socket.gethostname()} does not see {here}"
    if here not in sys.path:  # Class paths may name modules of that folder
        sys.path.append(here)
    os.environ.update(environment)
    make_quiet(threads)
    return run_claimed(fit, LET_GO)
