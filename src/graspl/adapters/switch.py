"""The base model within an adapted model: the adapter switched off."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

SWITCHED = (BaseTunerLayer, AuxiliaryTrainingWrapper)  # The latter holds modules that are trained in full


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """Switch a model's adapters off within the block; those that were on are on again afterwards.

    PEFT's `disable_adapter` also freezes every factor, which takes longer than a small model's forward pass.
    """
    layers = [m for m in model.modules() if isinstance(m, SWITCHED) and not m.disable_adapters]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False
