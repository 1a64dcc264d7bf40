"""`graspl plan`: the memory that a fit needs for certain, from the model's configuration alone."""

from typing import Literal

from rich.table import Table

from graspl.adapters.options import LoraOptions
from graspl.planning import Footprint, Layout, footprint, model_shape, sent_bytes
from graspl.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from graspl.reporting.tables import Shown

OPTIONS = {
    "single": "",
    "ddp": "--trainer.strategy ddp --trainer.devices {devices}",
    "fsdp": "--config configs/trainer/fsdp.yaml --trainer.devices {devices} "
    "--trainer.strategy.data_parallel_size {devices}",
}
NOT_COUNTED = (
    "Activations, gradients, the driver and the layers that FSDP2 gathers must fit into what is left."
)


def plan(
    base_model: str,
    *,
    lora: LoraOptions = LoraOptions(r=32, lora_alpha=64),  # noqa: B008 - never changed
    devices: PositiveInt = 1,
    memory_gb: PositiveFloat = 80.0,
    directions: NonNegativeInt = 6,
    accumulate: PositiveInt = 8,
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
) -> Shown:
    """Count the bytes that each device holds throughout a fit, for every way to run it.

    No weights are read. All figures are exact. Activations are not counted: they depend on your rows and kernels.

    Args:
        base_model: hub name, or folder with a `config.json`.
        lora: the adapter's options.
        devices: on all nodes together.
        memory_gb: of each device, in 10^9 bytes.
        directions: directions that the constraint holds in each layer; 0 for a naive fit.
        accumulate: micro-batches in an optimizer step.
        dtype: of the frozen weights.
    """
    shape = model_shape(base_model, lora, dtype=dtype)
    sizes = (
        f"{base_model}: {shape.frozen_numbers:,} frozen parameters, {shape.adapter_numbers:,} in the adapter"
    )
    table = Table("strategy", "4 bit", *Footprint._fields, "left", "sent a step", "options of graspl fit")
    table.title = f"each of {devices} device(s) with {memory_gb:g} GB"
    ways = {}
    for layout in Layout.every(devices):
        held, sent = footprint(shape, layout, directions=directions), sent_bytes(shape, layout, accumulate)
        ways[layout] = held, sent
        left = memory_gb * 1e9 - sum(held)
        figures = [*map(_size, held), _size(left) if left > 0 else "does not fit", _size(sent)]
        table.add_row(layout.strategy, "yes" if layout.four_bit else "no", *figures, _options(layout))
    return Shown(ways, [sizes, table, NOT_COUNTED])


def _options(layout: Layout) -> str:
    """Return the options of `graspl fit` that ask for a layout."""
    four_bit = " --model.load_in_4bit true" if layout.four_bit else ""
    return (OPTIONS[layout.strategy].format(devices=layout.devices) + four_bit).strip() or "-"


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
