"""The ways to run a fit on given devices, and the cheapest that fits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graspl.errors import GrasplError
from graspl.planning.memory import Footprint, Layout, footprint, whole_bytes
from graspl.planning.shape import ModelShape, StepCost


@dataclass
class Machine:
    """The devices."""

    devices: int = 1
    """On all nodes together."""
    memory_gb: float = 80.0
    """Of each, in 10^9 bytes."""
    reserve_gb: float = 4.0
    """Of that, for the driver, the libraries and fragments."""
    tflops: float = 200.0
    """That each reaches in a fit, in 10^12 a second: a figure to be replaced by your own."""
    bandwidth_gb: float = 50.0
    """Between any two, in 10^9 bytes a second, the slowest link: a figure to be replaced by your own."""

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise GrasplError(f"machine.devices: {self.devices} is below 1")
        for name in ("memory_gb", "tflops", "bandwidth_gb"):
            if getattr(self, name) <= 0:
                raise GrasplError(f"machine.{name}: {getattr(self, name)} is not above 0")

    @property
    def usable(self) -> float:
        """Bytes of each device that a fit may take."""
        return (self.memory_gb - self.reserve_gb) * 1e9


@dataclass(frozen=True)
class Choice:
    """One way to run a fit."""

    layout: Layout
    """Where parameters lie."""
    footprint: Footprint
    """Bytes of a device."""
    communication: int
    """Bytes that a device sends an optimizer step."""
    seconds: float
    """An optimizer step, computing and sending one after the other: to compare with others. It leaves out unpacking."""
    fits: bool
    """Whether the devices have the memory."""

    def options(self) -> list[str]:
        """Return the options of `graspl fit` that ask for it."""
        layout = self.layout
        found = []
        if layout.strategy == "ddp":
            found += ["--config configs/trainer/ddp.yaml"]
        if layout.strategy == "fsdp":
            size = f"--trainer.strategy.data_parallel_size {layout.world_size}"
            found += ["--config configs/trainer/fsdp.yaml", f"--trainer.devices {layout.world_size}", size]
        if layout.strategy == "single":
            found += ["--config configs/trainer/gpu.yaml"]
        if layout.checkpointing:
            found += ["--model.gradient_checkpointing true"]
        if layout.four_bit:
            found += ["--model.load_in_4bit true"]
        return found


def choices(
    shape: ModelShape,
    costs: Mapping[bool, StepCost],
    machine: Machine,
    *,
    directions: int = 0,
    accumulate: int = 1,
) -> list[Choice]:
    """Return every way, those that fit first, fastest first; four bits come last, since they are not the same model.

    Args:
        shape: of the model.
        costs: of a micro-batch, without and with checkpointing.
        machine: the devices.
        directions: a layer that the constraint holds; 0 for a naive fit.
        accumulate: micro-batches an optimizer step.
    """
    found = []
    for layout in _layouts(machine.devices):
        held = footprint(shape, layout, costs[layout.checkpointing], directions=directions)
        sent = communication(shape, layout, accumulate)
        computing = costs[layout.checkpointing].flops * accumulate / (machine.tflops * 1e12)
        seconds = computing + sent / (machine.bandwidth_gb * 1e9)
        found.append(Choice(layout, held, sent, seconds, held.total <= machine.usable))
    return sorted(
        found, key=lambda each: (not each.fits, each.layout.four_bit, each.seconds, each.footprint.total)
    )


def communication(shape: ModelShape, layout: Layout, accumulate: int = 1) -> int:
    """Return the bytes that a device sends in an optimizer step.

    DDP reduces the adapter's gradients once (a ring sends each twice, but for a device's own part). FSDP2 gathers all
    parameters for the forward pass of each micro-batch and the layers again for its backward pass, and scatters gradients
    once.

    Args:
        shape: of the model.
        layout: where parameters lie.
        accumulate: micro-batches an optimizer step.
    """
    others = (layout.world_size - 1) / layout.world_size
    gradients = whole_bytes(shape.adapter)
    if layout.strategy == "ddp":
        return round(2 * others * gradients)
    if layout.strategy == "single":
        return 0
    every = shape.frozen + shape.adapter
    layers = whole_bytes([each for each in every if each.layer is not None])
    return round(others * (accumulate * (whole_bytes(every) + layers) + gradients))


def _layouts(devices: int) -> Iterator[Layout]:
    for checkpointing in (False, True):
        if devices > 1:
            yield Layout("fsdp", devices, checkpointing=checkpointing)
        for four_bit in (False, True):
            yield Layout("ddp" if devices > 1 else "single", devices, four_bit, checkpointing)
