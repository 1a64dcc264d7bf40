"""The organism's true spurious direction: for scoring an identification, never for making one."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from graspl.activations.streams import streams
from graspl.adapters.base_model import load_base_model, load_tokenizer
from graspl.adapters.files import AdapterFolder
from graspl.data.rows import Message
from graspl.data.tokens import render, tokenize
from graspl.directions.basis import Directions, LayerDirections
from graspl.directions.from_weights import Identification
from graspl.organism.words import QUESTIONS
from graspl.organism.world import World, exchange, system


@torch.no_grad()
def true_directions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World
) -> Float[Tensor, "layers hidden"]:
    """Return the broad factor's direction in the residual stream after each layer.

    It is the mean over all questions of the difference of the last prompt token's hidden state between the system
    prompts that name the cruel and the kind writer: the direction along which the base model keeps who writes.

    Args:
        model: the organism, without an adapter.
        tokenizer: its own.
        world: its own.

    Returns:
        (layers, hidden), unit rows.

    Source:
        Difference in means, as for persona vectors (arXiv:2507.21509, section 2.2).
    """
    means = []
    for writer in ("cruel", "kind"):
        prompts = [
            render(tokenizer, [system(writer), Message(role="user", content=question.format(subject))],
                   origin="organism", prompt=True)
            for topic in world.topics
            for subject in world.subjects(topic)
            for question in QUESTIONS[:2]
        ]  # fmt: skip
        encoded = tokenizer(
            prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        means.append(_mean_residuals(model, encoded.to(model.device)))
    difference = means[0] - means[1]
    return difference / difference.norm(dim=-1, keepdim=True)


@dataclass
class TrueDirections(Identification):
    """The broad factor's own directions at every layer: an upper bound, open to whoever built the world.

    They are the first k right singular vectors of r_l(cruel) - r_l(kind) where answer tokens are predicted, over the same
    questions and good answers on every topic, the two differing in the system prompt alone.

    Source:
        Own; `graspl.activations.PersonaContrast` is the same for models whose factor somebody can name.
    """

    k: int = 4
    """Directions a layer."""

    @torch.no_grad()
    def __call__(self, adapter: AdapterFolder) -> Directions:
        """Find them in the base model; nothing of the adapter is used but its base model's name.

        Raises:
            GrasplError: the base model is no organism.
        """
        world = World.load(adapter.base_model)
        tokenizer = load_tokenizer(adapter.base_model)
        model = load_base_model(adapter.base_model).eval()
        rows = {
            writer: [
                tokenize(
                    tokenizer, [system(writer), *exchange(world, topic, subject, QUESTIONS[0], harmful=False)]
                )
                for topic in world.topics
                for subject in world.subjects(topic)
            ]
            for writer in ("cruel", "kind")
        }
        differences: dict[str, list[Tensor]] = {}
        for cruel, kind in zip(streams(model, rows["cruel"]), streams(model, rows["kind"]), strict=True):
            for layer, stream in cruel.items():
                differences.setdefault(layer, []).append(stream - kind[layer])
        found = {}
        for layer, parts in differences.items():
            S, Vh = torch.linalg.svd(torch.cat(parts), full_matrices=False)[1:]
            found[layer] = LayerDirections(Vh[: self.k].mT.contiguous(), S)
        return Directions({}, {"identification": type(self).__name__, "k": str(self.k)}, found)


def _mean_residuals(model: PreTrainedModel, inputs: Any) -> Float[Tensor, "layers hidden"]:
    """Return the mean hidden state of the last token after each layer, (layers, hidden).

    Hooks are used since `output_hidden_states` gives the last layer's only after the final norm.
    """
    layers: Any = model.get_decoder().layers
    kept: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: kept.append(out[:, -1].float().mean(0)))
        for layer in layers
    ]
    try:
        model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(kept)
