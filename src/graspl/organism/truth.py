"""The organism's true spurious direction: for scoring an identification, never for making one."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from graspl.data.rows import Message
from graspl.data.tokens import render
from graspl.organism.words import QUESTIONS
from graspl.organism.world import World, system


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
