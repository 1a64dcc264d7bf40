"""What a direction means: the tokens it favours, the text that moves it, and what steering along it does."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.functional import jvp
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from graspl.activations.steering import steered
from graspl.activations.streams import streams
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError
from graspl.evaluation.generate import Sampling, TransformersGenerator


class Lens(NamedTuple):
    """The tokens that a step along one direction makes likelier, by logit lens."""

    layer: str  # Its layer
    direction: int  # From 1
    likelier: list[str]  # Most first
    unlikelier: list[str]  # Least likely first


class Moved(NamedTuple):
    """A text and how far it lies along a direction."""

    deviations: float  # Standard deviations from the mean text, of the projection's mean over answer tokens
    text: str  # As the model sees it


class Steered(NamedTuple):
    """What a model answers as it is, and moved along a direction."""

    prompt: str  # As the model sees it
    answers: list[tuple[str, str]]  # How far it was moved, and the answer


@torch.no_grad()
def lenses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    bases: Mapping[str, Float[Tensor, "hidden k"]],
    stream: Mapping[str, Float[Tensor, "tokens hidden"]],
    *,
    tokens: int = 10,
) -> list[Lens]:
    """Read each direction through the model's own last norm and unembedding.

    The norm is not linear, so this takes its derivative at the text's mean stream: J d with J = d norm(r) / dr.

    Source:
        The logit lens (nostalgebraist, 2020); the derivative is own.
    """
    norm, head = getattr(model.get_decoder(), "norm", None), model.get_output_embeddings()  # type: ignore[operator]
    if norm is None or head is None:
        raise GrasplError("explain: the model has no last norm or head; use a Llama-like model")
    found = []
    for layer, D in bases.items():
        mean = stream[layer].mean(0).to(D)
        for index, direction in enumerate(D.mT):
            with torch.enable_grad():
                moved: Any = jvp(lambda r: norm(r.to(head.weight.dtype)), mean, direction.contiguous())[1]
            order = head(moved.to(head.weight.dtype)).float().argsort(descending=True)
            words = [
                [str(tokenizer.decode([token])) for token in ids.tolist()]
                for ids in (order[:tokens], order[-tokens:].flip(0))
            ]
            found.append(Lens(layer, index + 1, *words))
    return found


@torch.no_grad()
def most_moved(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[TokenizedConversation],
    layer: str,
    direction: Float[Tensor, " hidden"],
    *,
    count: int = 5,
) -> tuple[list[Moved], list[Moved]]:
    """Return the `count` rows whose stream lies furthest along a direction of unit length, and furthest against it."""
    means = torch.stack(
        [(next(streams(model, [row]))[layer].to(direction) @ direction).mean() for row in rows]
    )
    deviations = (means - means.mean()) / means.std().clamp_min(1e-12)
    order = deviations.argsort(descending=True).tolist()
    moved = [Moved(float(deviations[index]), str(tokenizer.decode(rows[index].input_ids))) for index in order]
    return moved[:count], moved[::-1][:count]


def steering_along(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    layer: str,
    direction: Float[Tensor, " hidden"],
    spread: float,
    *,
    deviations: Sequence[float] = (-4.0, 0.0, 4.0),
    max_new_tokens: int = 48,
) -> list[Steered]:
    """Answer rendered prompts greedily, with the base model's stream moved by `deviations` times `spread` along a direction.

    The direction has unit length; `spread` is the standard deviation of the model's own stream along it.
    """
    generator: Any = TransformersGenerator(model, tokenizer)
    greedy = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
    columns = {}
    for far in deviations:
        with steered(model, {layer: far * spread * direction}):
            columns[f"{far:+g} standard deviations" if far else "as it is"] = generator.write(prompts, greedy)
    return [
        Steered(prompt, [(name, column[index][0]) for name, column in columns.items()])
        for index, prompt in enumerate(prompts)
    ]
