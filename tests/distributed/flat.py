"""FSDP1 on a CPU: Lightning refuses the class itself where there is no GPU, and lets its subclasses be."""

from lightning.pytorch.strategies import FSDPStrategy


class FlatSharded(FSDPStrategy):
    """FSDP1 as Lightning has it."""
