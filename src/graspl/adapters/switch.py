"""The base model that an adapted model is, with its adapter off."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """Let a model be its base model within the block.

    PEFT's `disable_adapter` takes stock of every layer and freezes every factor, which takes longer than a small model's
    forward pass.

    Args:
        model: with adapters; those that are on are on again after the block.
    """
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer) and not m.disable_adapters]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False
