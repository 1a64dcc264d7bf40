"""Rounds: identify, constrain, identify again in what the constraint leaves."""

import logging
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from graspl.adapters.residual import decoder_layers
from graspl.constraints.base import Constraint
from graspl.constraints.combined import set_k
from graspl.directions.basis import Directions, LayerDirections
from graspl.directions.from_weights import Identification
from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule
from graspl.methods.throwaway import noise_floor, throwaway_directions

log = logging.getLogger(__name__)


def directions_by_rounds(
    module: LoRALitModule,
    method: Identification,
    constraint: Constraint,
    *,
    rounds: int,
    max_steps: int,
    stable: float,
) -> Directions:
    """Find the directions within a fit, in one round or more.

    From the second round on the throw-away adapter keeps to the constraint with the directions so far, and what is found in
    it is added, orthogonally. It stops by itself when what such an adapter writes along its first directions is no more than
    on shuffled answers, the noise floor.

    Args:
        module: in a fit.
        method: finds layers' directions in a throw-away adapter.
        constraint: that the fit will keep to; copied, with k widened.
        rounds: at most; 1 takes no noise floor.
        max_steps: optimizer steps of each throw-away adapter, at most.
        stable: agreement at which one stops.

    Raises:
        GrasplError: the method gives no layers' directions to add up.

    Source:
        Own; whether a second round is worth its price is in docs/method.md.
    """
    how: dict[str, Any] = {"max_steps": max_steps, "stable": stable}
    found, _ = throwaway_directions(module, method, **how)
    if rounds == 1:
        return found
    if not found.layers:
        raise GrasplError(
            "model.rounds: only layers' directions are added up; set rounds to 1, or identify layers"
        )
    floor, floor_steps = noise_floor(module, **how)
    found = _counted(found, floor_steps)
    for number in range(2, rounds + 1):
        held = _widened(constraint, found.width("D"))
        held.bind(module.sites, found)
        held.attach(decoder_layers(module.model))  # type: ignore[arg-type]
        try:
            more, strength = throwaway_directions(module, method, **how, held=held)
        finally:
            held.detach()
        # What a round costs it costs also where it is the last
        found = _counted(found, int(more.metadata["naive_steps"]))
        if strength <= floor:
            log.info(
                "directions: round %d is below the noise floor (%.3g against %.3g a step)",
                number,
                strength,
                floor,
            )
            break
        found = _joined(found, more, number)
    return found


def _widened(constraint: Constraint, k: int) -> Constraint:
    copied = deepcopy(constraint)
    set_k(copied, k)
    return copied


def _counted(found: Directions, steps: int) -> Directions:
    """Add optimizer steps to those that the directions have cost."""
    total = str(int(found.metadata["naive_steps"]) + steps)
    return Directions(found.sites, {**found.metadata, "naive_steps": total}, found.layers)


def _joined(found: Directions, more: Directions, number: int) -> Directions:
    layers = {
        name: LayerDirections(_with_more(layer.D, more.layers[name].D), more.layers[name].S)
        for name, layer in found.layers.items()
    }
    return Directions({}, {**found.metadata, "rounds": str(number)}, layers)


def _with_more(D: Tensor, new: Tensor) -> Tensor:
    """Return D with the new columns orthogonal to it, (hidden, k + new)."""
    Q = torch.linalg.qr(torch.cat([D, new], dim=1))[0]
    return torch.cat([D, Q[:, D.shape[1] :]], dim=1).contiguous()
