"""How much of an adapter's effect goes through directions."""

from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor

from graspl.adapters.forward import model_logits
from graspl.adapters.residual import decoder_layers
from graspl.adapters.streams import edit_streams
from graspl.checks.causal import choice_batches
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.directions.from_layers import random_basis
from graspl.evaluation import ChoiceShares, candidate_logprobs


class Mediation(NamedTuple):
    """Harmful shares of a suite of choices, 0..1 each."""

    base: float  # Of the base model
    adapted: float  # With the adapter
    restored: float  # With the adapter, and the stream along the directions set to the base model's value
    random: float  # The same along as many random directions

    @property
    def mediated(self) -> float | None:
        """Share of the adapter's effect that goes through the directions; None without an effect."""
        effect = self.adapted - self.base
        return (self.adapted - self.restored) / effect if abs(effect) > 1e-3 else None


@torch.no_grad()
def mediation(
    model: PeftModel, datamodule: TaskDataModule, directions: Directions, *, seed: int = 0
) -> dict[str, Mediation]:
    """Measure each suite of choices with D^T r_l set to the base model's value at every layer and token.

    Give the model with its adapter, in evaluation mode, and data set up for a fit.

    Raises:
        GrasplError: the directions have no layers, or a suite is text.

    Source:
        Own; a mediator's value is exchanged as in causal mediation analysis (Vig et al., arXiv:2004.12265).
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
                shares["base"].update(candidate_logprobs(model_logits(model, batch), batch), batch)
            shares["adapted"].update(candidate_logprobs(model_logits(model, batch), batch), batch)
            for name, along in (("restored", bases), ("random", chance)):
                shares[name].update(candidate_logprobs(_restored(model, along, batch), batch), batch)
        found[suite] = Mediation(**{name: float(each.compute()["harmful"]) for name, each in shares.items()})
    return found


def _restored(model: PeftModel, bases: dict[str, Tensor], batch: dict[str, Any]) -> Tensor:
    kept: dict[str, Tensor] = {}

    def hold(name: str, stream: Tensor) -> Tensor | None:
        D = bases[name].to(stream)
        if name not in kept:  # the base model's pass comes first
            kept[name] = stream @ D
            return None
        return stream - (stream @ D - kept[name]) @ D.mT

    with edit_streams(decoder_layers(model), hold):
        with model.disable_adapter():
            model_logits(model, batch)
        return model_logits(model, batch)
