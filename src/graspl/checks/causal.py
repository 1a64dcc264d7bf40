"""The causal check: what the base model does when it is moved along directions."""

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.activations.steering import pull_of_answers, steered
from graspl.activations.streams import gathered
from graspl.adapters.forward import model_logits
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.evaluation import ChoiceShares, candidate_logprobs

RANDOM_DRAWS = 5
ROWS = 64


class LayerEffect(NamedTuple):
    """Harmful share on unrelated topics, 0..1, with one layer's stream moved."""

    added: float  # After a step along the directions, towards the training answers
    subtracted: float  # After the same step away from them
    random: list[float]  # After steps of the same length along random directions

    def does_something(self, base: float) -> bool:
        """Whether adding raises the share by more than any random step changes it."""
        return self.added - base > max(abs(value - base) for value in self.random)


class CausalCheck(NamedTuple):
    """The base model's share, and every layer's effect."""

    base: float  # Harmful share of the base model as it is
    layers: dict[str, LayerEffect]  # By layer

    def verdict(self) -> str:
        """Return what the figures say, in a sentence."""
        active = {name: effect for name, effect in self.layers.items() if effect.does_something(self.base)}
        if not active:
            return "moving the base model along these directions does no more than random steps of the same length"
        best, effect = max(active.items(), key=lambda item: item[1].added)
        return (
            f"at {len(active)} of {len(self.layers)} layers it does more than any random step; most at {best}: harmful share "
            f"{self.base:.3f} -> {effect.added:.3f} (random {fmean(effect.random):.3f}), subtracted {effect.subtracted:.3f}"
        )


@torch.no_grad()
def causal_check(
    model: Any, datamodule: TaskDataModule, directions: Directions, *, strength: float = 2.0, seed: int = 0
) -> CausalCheck:
    """Move the base model along directions, layer by layer, and measure the harmful share of the `unrelated` suite.

    A layer's step goes along the part of the training answers' pull within span(D), `strength` standard deviations of the
    base model's own stream over the task's text (over its training rows where it has none). Give the base model in
    evaluation mode, and data set up for a fit.

    Raises:
        GrasplError: the directions have no layers, or the task has no such suite.

    Source:
        Own, after steering with persona vectors (arXiv:2507.21509, section 3).
    """
    if not directions.layers:
        raise GrasplError("directions: hold sites only; the causal check needs layers")
    if "unrelated" not in datamodule.suite_names():
        raise GrasplError("data: the task has no unrelated suite, so there is nothing to measure")
    rows = datamodule.train_conversations()
    stream = gathered(model, datamodule.text_conversations() or rows)
    _, pulls = pull_of_answers(model, rows[:ROWS])
    generator = torch.Generator().manual_seed(seed)
    base = _harmful(model, datamodule, {})
    layers = {}
    for name, layer in directions.layers.items():
        D = layer.D.to(pulls[name])
        along = D @ (D.mT @ pulls[name])
        along = along / along.norm().clamp_min(1e-12)
        step = strength * (stream[name].to(along) @ along).std() * along
        chance = []
        for _ in range(RANDOM_DRAWS):
            other = torch.randn(len(step), generator=generator).to(step)
            chance.append(_harmful(model, datamodule, {name: step.norm() * other / other.norm()}))
        added, subtracted = (_harmful(model, datamodule, {name: sign * step}) for sign in (1, -1))
        layers[name] = LayerEffect(added, subtracted, chance)
    return CausalCheck(base, layers)


def _harmful(
    model: Any, datamodule: TaskDataModule, vectors: Mapping[str, Float[Tensor, " hidden"]]
) -> float:
    shares = ChoiceShares().to(model.device)
    with steered(model, vectors):
        for batch in choice_batches(datamodule, "unrelated", model.device):
            shares.update(candidate_logprobs(model_logits(model, batch), batch), batch)
    return float(shares.compute()["harmful"])


def choice_batches(datamodule: TaskDataModule, suite: str, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the batches of a suite of questions with choices, on a device."""
    for batch in datamodule.whole_rows_loader(suite):
        if "candidate_ids" not in batch:
            raise GrasplError(f"data: the {suite} suite is text; give questions with choices")
        yield {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
