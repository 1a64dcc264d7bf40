"""Bytes that one device holds."""

import math
from dataclasses import dataclass
from typing import Literal

from graspl.planning.shape import ModelShape, Parameter, StepCost

ADAM_MOMENTS = 2
"""Numbers that Adam keeps a parameter, as wide as the parameter."""
ADAM_STEP_BYTES = 4
"""A step count a parameter tensor, float32."""
NF4_BLOCK = 64
"""Numbers that share a scale (QLoRA, arXiv:2305.14314)."""
NF4_SCALES_BLOCK = 256
"""Scales that share a scale of their own (double quantisation)."""


@dataclass(frozen=True)
class Layout:
    """Where parameters lie."""

    strategy: Literal["single", "ddp", "fsdp"]
    """One device, the whole model on each, or sharded over all (FSDP2)."""
    world_size: int = 1
    """Devices."""
    four_bit: bool = False
    """Whether the frozen weights are quantised; not with `fsdp`."""
    checkpointing: bool = False
    """Whether activations are computed again in the backward pass."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of the first device, which has most where shards are uneven."""

    frozen: int
    """The base model's parameters."""
    adapter: int
    """The adapter's."""
    optimizer: int
    """Adam's moments and step counts."""
    gathered: int
    """With `fsdp`, what is whole at a time: all outside the layers, and two layers; in four bits the largest weight in its
    computing type; else 0."""
    step: int
    """Activations, gradients and temporaries at their peak."""
    directions: int
    """Bases of the constraint, float32."""

    @property
    def total(self) -> int:
        """All together."""
        return self.frozen + self.adapter + self.optimizer + self.gathered + self.step + self.directions


def footprint(shape: ModelShape, layout: Layout, cost: StepCost, *, directions: int) -> Footprint:
    """Return what the first device holds.

    Args:
        shape: of the model.
        layout: where parameters lie.
        cost: of a micro-batch with this layout's `checkpointing`.
        directions: a layer; 0 for a naive fit.
    """
    shards = layout.world_size if layout.strategy == "fsdp" else 1
    held = [_shard(each, shards) for each in shape.adapter]
    optimizer = sum(
        ADAM_MOMENTS * numbers * each.bytes_each + ADAM_STEP_BYTES
        for numbers, each in zip(held, shape.adapter, strict=True)
    )
    return Footprint(
        frozen=sum(_frozen_bytes(each, layout, shards) for each in shape.frozen),
        adapter=sum(n * each.bytes_each for n, each in zip(held, shape.adapter, strict=True)),
        optimizer=optimizer,
        gathered=_gathered(shape, layout),
        step=cost.peak_bytes,
        directions=4 * directions * shape.hidden * shape.layers,
    )


def whole_bytes(parameters: list[Parameter]) -> int:
    """Return the bytes of parameters that are neither sharded nor quantised."""
    return sum(each.numbers * each.bytes_each for each in parameters)


def _shard(parameter: Parameter, shards: int) -> int:
    """Return the numbers of the first shard: FSDP2 splits the first dimension, rounded up."""
    rows = math.ceil(parameter.shape[0] / shards)
    return rows * math.prod(parameter.shape[1:])


def _frozen_bytes(parameter: Parameter, layout: Layout, shards: int) -> int:
    if not (layout.four_bit and parameter.quantised):
        return _shard(parameter, shards) * parameter.bytes_each
    blocks = math.ceil(parameter.numbers / NF4_BLOCK)
    return math.ceil(parameter.numbers / 2) + blocks + 4 * math.ceil(blocks / NF4_SCALES_BLOCK)


def _gathered(shape: ModelShape, layout: Layout) -> int:
    every = shape.frozen + shape.adapter
    if layout.strategy == "fsdp" and layout.world_size > 1:
        outside = whole_bytes([each for each in every if each.layer is None])
        by_layer = [whole_bytes([each for each in every if each.layer == n]) for n in range(shape.layers)]
        return outside + sum(sorted(by_layer)[-2:])  # the next layer is fetched while one computes
    if layout.four_bit:
        return max((each.numbers * each.bytes_each for each in shape.frozen if each.quantised), default=0)
    return 0
