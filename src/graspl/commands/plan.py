"""`graspl plan`: the memory that a fit needs for certain, from the model's configuration alone."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from rich.table import Table

from graspl.adapters.options import LoraOptions
from graspl.planning import Footprint, Layout, ModelShape, footprint, model_shape, sent_bytes
from graspl.ranges import NonNegativeInt, PositiveFloat, PositiveInt

OPTIONS = {
    "single": "",
    "ddp": "--trainer.strategy ddp --trainer.devices {devices}",
    "fsdp": "--config configs/trainer/fsdp.yaml --trainer.devices {devices} "
    "--trainer.strategy.data_parallel_size {devices}",
}


class Way(NamedTuple):
    """One way to run a fit."""

    layout: Layout
    """Where parameters lie."""
    held: Footprint
    """Bytes of a device."""
    sent: int
    """Bytes that a device sends in an optimizer step."""

    @property
    def options(self) -> str:
        """Options of `graspl fit` that ask for it."""
        four_bit = " --model.load_in_4bit true" if self.layout.four_bit else ""
        return (OPTIONS[self.layout.strategy].format(devices=self.layout.devices) + four_bit).strip() or "-"


class Plan(NamedTuple):
    """Every way to run a fit."""

    base_model: str
    """Its name."""
    shape: ModelShape
    """Its sizes."""
    memory_gb: float
    """Of a device."""
    ways: list[Way]
    """On one device, or with DDP and FSDP2 on several."""

    def render(self) -> Iterator[Table | str]:
        """Yield the sizes, one row for each way, and what the table leaves out."""
        shape = self.shape
        yield f"{self.base_model}: {shape.frozen_numbers:,} frozen parameters, {shape.adapter_numbers:,} in the adapter"
        table = Table("strategy", "4 bit", *Footprint._fields, "left", "sent a step", "options of graspl fit")
        table.title = f"each of {self.ways[0].layout.devices} device(s) with {self.memory_gb:g} GB"
        for layout, held, sent in self.ways:
            left = self.memory_gb * 1e9 - sum(held)
            room = _size(left) if left > 0 else "does not fit"
            four_bit = "yes" if layout.four_bit else "no"
            table.add_row(
                layout.strategy,
                four_bit,
                *map(_size, held),
                room,
                _size(sent),
                Way(layout, held, sent).options,
            )
        yield table
        yield "Activations, gradients, the driver, and with FSDP2 the layers being gathered must fit into what is left."


def plan(
    base_model: str,
    *,
    lora: LoraOptions = LoraOptions(r=32, lora_alpha=64),  # noqa: B008 - never changed
    devices: PositiveInt = 1,
    memory_gb: PositiveFloat = 80.0,
    directions: NonNegativeInt = 6,
    accumulate: PositiveInt = 8,
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16",
) -> Plan:
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

    Raises:
        GrasplError: the configuration cannot be read, or the adapter's options fit no layer.
    """
    shape = model_shape(base_model, lora, dtype=dtype)
    ways = [
        Way(layout, footprint(shape, layout, directions=directions), sent_bytes(shape, layout, accumulate))
        for layout in Layout.every(devices)
    ]
    return Plan(base_model, shape, memory_gb, ways)


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
