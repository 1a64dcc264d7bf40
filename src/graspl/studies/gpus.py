"""Which GPUs each fit of a study takes, where several run at a time."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graspl.errors import GrasplError
from graspl.studies.plan import Fit

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"  # What CUDA reads before its first use in a process
EVERY = ("auto", -1, "-1")  # Values of `trainer.devices` that take all there are


class Shares(NamedTuple):
    """How many fits run at a time, and on which GPUs."""

    jobs: int
    sets: list[
        str
    ]  # CUDA_VISIBLE_DEVICES of each worker process; empty where all of them see what this one sees


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them: indices, or UUIDs where it has these."""
    import torch

    # Does not begin to use them. CUDA leaves out what stands behind the first name that it does not know
    number = torch.cuda.device_count()
    named = environment.get(VISIBLE)
    names = map(str, range(number)) if named is None else named.split(",")
    return [each.strip() for each in names][:number]


def devices_of(trainer: Mapping[str, Any], gpus: int) -> int:
    """Return on how many devices a trainer with these settings would run, where so many GPUs are visible."""
    devices = trainer.get("devices", "auto")
    if isinstance(devices, list):
        return len(devices)
    if devices in EVERY:
        return max(1, gpus) if takes_gpus(trainer) else 1
    names = [each for each in str(devices).split(",") if each.strip()]
    return len(names) if "," in str(devices) else int(names[0]) if names and names[0].isdigit() else 1


def takes_gpus(trainer: Mapping[str, Any]) -> bool:
    """Whether a trainer with these settings takes GPUs where there are some."""
    return trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")


def gpus_for(fit: Fit, gpus: int) -> int:
    """Return how many GPUs a fit beside others takes, where there are so many: what it asks for, one where it does not say.

    Raises:
        GrasplError: it asks for more, or for certain ones.
    """
    trainer = fit.trainer()
    if not takes_gpus(trainer) or not gpus:
        return 0
    devices = trainer.get("devices", "auto")
    if isinstance(devices, list) or "," in str(devices):
        fix = "give their number, since fits at a time share the GPUs out"
        raise GrasplError(f"trainer.devices: {fit.name} names its GPUs, {devices}; {fix}")
    asked = 1 if devices in EVERY else devices_of(trainer, gpus)
    if asked > gpus:
        raise GrasplError(
            f"trainer.devices: {fit.name} asks for {asked} GPUs, and {gpus} can be had; ask for fewer"
        )
    return asked


def shared_out(fits: Sequence[Fit], jobs: int) -> Shares:
    """Give each of several worker processes GPUs of its own, and limit the processes to what the GPUs are enough for.

    One process alone sees all GPUs, as a fit by itself does.
    """
    if jobs == 1:
        return Shares(1, [])
    gpus = visible_gpus(os.environ)
    each = max((gpus_for(fit, len(gpus)) for fit in fits), default=0)
    if not each:
        return Shares(jobs, [])
    enough = len(gpus) // each
    if jobs > enough:
        log.info(
            "jobs: %d at a time, not %d: each takes %d of %d visible GPUs", enough, jobs, each, len(gpus)
        )
        jobs = enough
    return Shares(jobs, [",".join(gpus[first : first + each]) for first in range(0, jobs * each, each)])
