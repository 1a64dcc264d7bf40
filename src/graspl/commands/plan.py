"""`graspl plan`: what a fit will need, from the model's configuration alone."""

from typing import Any, Literal

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.adapters.base_model import ORGANISM
from graspl.adapters.options import LoraOptions
from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.planning.choices import Choice, Machine, choices
from graspl.planning.shape import model_shape, step_cost


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl plan`."""
    parser.add_function_arguments(plan)


def plan(
    base_model: str = ORGANISM,
    lora: LoraOptions = LoraOptions(r=32, lora_alpha=64),  # noqa: B008 - never changed
    machine: Machine = Machine(),  # noqa: B008 - never changed
    rows: int = 2,
    length: int = 1024,
    accumulate: int = 8,
    directions: int = 6,
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
) -> list[Choice]:
    """Print memory a device, bytes sent and time a step of every way to run a fit, and the fastest that fits.

    No weights are read. Parameters and optimizer state are exact; a step's peak is counted on an empty model, without what
    kernels use within themselves; times are for comparing ways with each other. A divergence or a validation needs more.

    Args:
        base_model: folder with a `config.json`, hub name, or `organism`.
        lora: the adapter's options.
        machine: the devices.
        rows: of a micro-batch, a device.
        length: tokens of its longest row.
        accumulate: micro-batches an optimizer step.
        directions: a layer that the constraint holds; 0 for a naive fit.
        dtype: of the frozen weights.

    Raises:
        GrasplError: the configuration cannot be read, or a figure is out of range.
    """
    for name, value in (("rows", rows), ("length", length), ("accumulate", accumulate)):
        if value < 1:
            raise GrasplError(f"{name}: {value} is below 1")
    shape = model_shape(base_model, lora, dtype=dtype)
    costs = {
        checkpointing: step_cost(
            base_model, lora, rows=rows, length=length, dtype=dtype, checkpointing=checkpointing
        )
        for checkpointing in (False, True)
    }
    found = choices(shape, costs, machine, directions=directions, accumulate=accumulate)
    terminal = console()
    terminal.print(
        f"{base_model}: {shape.frozen_numbers:,} frozen parameters, {shape.adapter_numbers:,} in the adapter",
        highlight=False,
    )
    terminal.print(_table(found, machine))
    best = found[0]
    said = (
        f"fastest that fits: {' '.join(best.options())}"
        if best.fits
        else f"nothing fits into {machine.memory_gb:g} GB a device; the smallest takes "
        f"{_gb(min(each.footprint.total for each in found))}. Take more devices, shorter rows or fewer a batch"
    )
    terminal.print(said, soft_wrap=True, highlight=False, markup=False)
    return found


def _table(found: list[Choice], machine: Machine) -> Table:
    table = Table(
        "strategy", "4 bit", "checkpoints", "frozen", "adapter", "optimizer", "gathered", "step", "directions", "total",
        "fits", "sent a step", "seconds a step",
        title=f"bytes a device, {machine.devices} device(s) of {machine.memory_gb:g} GB",
    )  # fmt: skip
    for each in found:
        held: Any = each.footprint
        parts = ("frozen", "adapter", "optimizer", "gathered", "step", "directions", "total")
        table.add_row(
            each.layout.strategy,
            _yes(each.layout.four_bit),
            _yes(each.layout.checkpointing),
            *(_gb(getattr(held, part)) for part in parts),
            _yes(each.fits),
            _gb(each.communication),
            f"{each.seconds:.2f}",
        )
    return table


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
