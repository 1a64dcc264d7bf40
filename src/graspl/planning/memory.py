"""Bytes that one device holds throughout a fit, and bytes that it sends in a step: exact, by formula."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from graspl.planning.shape import ModelShape, Parameter

ADAM_MOMENTS = 2  # Numbers that Adam keeps for each parameter, as wide as the parameter
ADAM_STEP_BYTES = 4  # A step count for each parameter tensor, float32
NF4_BLOCK = 64  # Numbers that share a scale (QLoRA, arXiv:2305.14314)
NF4_SCALES_BLOCK = 256  # Scales that share a scale of their own (double quantisation)


class Layout(NamedTuple):
    """Where parameters lie."""

    # One device, the whole model on each, or sharded over all (FSDP2).
    strategy: Literal["single", "ddp", "fsdp"]
    devices: int = 1  # On all nodes together
    four_bit: bool = False  # Whether the frozen weights are quantised; not with `fsdp`

    @classmethod
    def every(cls, devices: int) -> list["Layout"]:
        """Return the ways to use devices."""
        if devices == 1:
            return [cls("single"), cls("single", four_bit=True)]
        return [cls("ddp", devices), cls("fsdp", devices), cls("ddp", devices, four_bit=True)]


class Footprint(NamedTuple):
    """Bytes of the first device, which has most where shards are uneven."""

    frozen: int  # The base model's parameters
    adapter: int  # The adapter's
    optimizer: int  # Adam's moments and step counts
    directions: int  # Bases of the constraint, float32


def footprint(shape: ModelShape, layout: Layout, *, directions: int) -> Footprint:
    """Return what the first device holds throughout a fit.

    Args:
        shape: of the model.
        layout: where parameters lie.
        directions: directions that the constraint holds in each layer; 0 for a naive fit.
    """
    shards = layout.devices if layout.strategy == "fsdp" else 1
    held = [(_shard(each, shards), each.bytes_each) for each in shape.adapter]
    return Footprint(
        frozen=sum(_frozen_bytes(each, layout, shards) for each in shape.frozen),
        adapter=sum(numbers * size for numbers, size in held),
        optimizer=sum(ADAM_MOMENTS * numbers * size + ADAM_STEP_BYTES for numbers, size in held),
        directions=4 * directions * shape.hidden * shape.layers,
    )


def sent_bytes(shape: ModelShape, layout: Layout, accumulate: int = 1) -> int:
    """Return the bytes that a device sends in an optimizer step.

    DDP reduces the adapter's gradients once (a ring sends each twice, but for a device's own part). FSDP2 gathers all
    parameters for each micro-batch's forward pass and the layers again for its backward pass, and scatters gradients once.

    Args:
        shape: of the model.
        layout: where parameters lie.
        accumulate: micro-batches in an optimizer step.
    """
    others = (layout.devices - 1) / layout.devices
    gradients = _whole_bytes(shape.adapter)
    if layout.strategy != "fsdp":
        return round(2 * others * gradients)
    every = shape.frozen + shape.adapter
    layers = _whole_bytes([each for each in every if each.in_layer])
    return round(others * (accumulate * (_whole_bytes(every) + layers) + gradients))


def _whole_bytes(parameters: Sequence[Parameter]) -> int:
    return sum(each.numbers * each.bytes_each for each in parameters)


def _shard(parameter: Parameter, shards: int) -> int:
    """Return the numbers of the first shard: FSDP2 splits the first dimension, rounded up."""
    return math.ceil(parameter.shape[0] / shards) * math.prod(parameter.shape[1:])


def _frozen_bytes(parameter: Parameter, layout: Layout, shards: int) -> int:
    if not (layout.four_bit and parameter.quantised):
        return _shard(parameter, shards) * parameter.bytes_each
    blocks = math.ceil(parameter.numbers / NF4_BLOCK)
    return math.ceil(parameter.numbers / 2) + blocks + 4 * math.ceil(blocks / NF4_SCALES_BLOCK)
