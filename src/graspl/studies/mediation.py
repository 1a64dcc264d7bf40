"""How much of what an adapter does goes through directions: the stream is put back along them, and all is measured again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor

from graspl.adapters.forward import model_logits
from graspl.adapters.residual import decoder_layers
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.directions.from_layers import random_basis
from graspl.evaluation.logprobs import candidate_logprobs
from graspl.evaluation.metrics import ChoiceShares
from graspl.studies.causal import choice_batches


class Mediation(NamedTuple):
    """Harmful shares of a suite of choices, 0..1 each."""

    base: float
    """Of the base model."""
    adapted: float
    """With the adapter."""
    restored: float
    """With the adapter, the stream put back along the directions."""
    random: float
    """The same along as many random directions."""

    @property
    def mediated(self) -> float | None:
        """Share of the adapter's effect that goes through the directions; None without an effect."""
        effect = self.adapted - self.base
        return (self.adapted - self.restored) / effect if abs(effect) > 1e-3 else None


@torch.no_grad()
def mediation(
    model: PeftModel, datamodule: TaskDataModule, directions: Directions, *, seed: int = 0
) -> dict[str, Mediation]:
    """Set D^T r_l to the base model's value at every layer and token, and measure each suite of choices again.

    Args:
        model: with its adapter, in evaluation mode.
        datamodule: set up for a fit.
        directions: with layers.
        seed: of the random directions.

    Returns:
        By suite.

    Raises:
        GrasplError: the directions have no layers, or a suite is text.

    Source:
        Own; interchange of a mediator's value, as in causal mediation analysis (Vig et al., arXiv:2004.12265).
    """
    names = list(decoder_layers(model))
    bases = dict(zip(names, directions.layer_bases(names, k=None), strict=True))
    generator = torch.Generator().manual_seed(seed)
    chance = {name: random_basis(D.shape[0], D.shape[1], generator) for name, D in bases.items()}
    found = {}
    for suite in datamodule.suite_names():
        shares = {name: ChoiceShares().to(model.device) for name in Mediation._fields}
        for batch in choice_batches(datamodule, suite, model.device):
            with model.disable_adapter():
                shares["base"].update(*_scores(model, batch))
            shares["adapted"].update(*_scores(model, batch))
            for name, along in (("restored", bases), ("random", chance)):
                with _put_back(model, along, batch):
                    shares[name].update(*_scores(model, batch))
        found[suite] = Mediation(**{name: float(each.compute()["harmful"]) for name, each in shares.items()})
    return found


def _scores(model: PeftModel, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    return candidate_logprobs(model_logits(model, batch), batch), batch


@contextmanager
def _put_back(
    model: PeftModel, bases: Mapping[str, Float[Tensor, "hidden k"]], batch: dict[str, Any]
) -> Iterator[None]:
    """Hold the stream along each layer's directions at the base model's value on this batch, within the block."""
    kept: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def held(_module: Any, _inputs: Any, output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            D = bases[name].to(stream)
            if name not in kept:  # the base model's pass comes first
                kept[name] = stream @ D
                return None
            stream = stream - (stream @ D - kept[name]) @ D.mT
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return held

    hooks = [layer.register_forward_hook(hook(name)) for name, layer in decoder_layers(model).items()]
    try:
        with model.disable_adapter():
            model_logits(model, batch)
        yield
    finally:
        for each in hooks:
            each.remove()
