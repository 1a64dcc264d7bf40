"""Adding directions to a model's residual stream, and what the training answers gain by it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from graspl.activations.streams import batch_of
from graspl.adapters.answers import answer_places
from graspl.adapters.forward import model_logits
from graspl.adapters.loss import answer_logits, summed_loss_at
from graspl.adapters.residual import decoder_layers
from graspl.adapters.streams import StreamHooks, edit_streams
from graspl.data.tokens import TokenizedConversation

# Steps along a direction, in standard deviations of the base model's own stream along it.
STRENGTHS = (1.0, 2.0, 3.0)
# Rows at a time: over a large vocabulary the logits of all of them can take more memory than the model.
BATCH = 8


def steered(
    model: PreTrainedModel | PeftModel, vectors: Mapping[str, Float[Tensor, " hidden"]]
) -> StreamHooks:
    """Add a vector to the residual stream after each layer named, at every token, until the hooks are removed."""
    layers = decoder_layers(model)
    return edit_streams({name: layers[name] for name in vectors}, lambda name, r: r + vectors[name].to(r))


@torch.enable_grad()
def pull_of_answers(
    model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation]
) -> tuple[float, dict[str, Float[Tensor, " hidden"]]]:
    """Return the answers' loss, in nats a token, and -dLoss/dr_l by layer, averaged over their tokens."""
    kept: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    tokens = sum(int(answer_places(batch["labels"]).sum()) for batch in _batches(model, rows))
    loss = 0.0

    def keep(layer: str, stream: Tensor) -> None:
        stream.retain_grad()
        kept[layer] = stream

    # Frozen weights alone would give a stream without gradients
    embedding: Any = {"": model.get_input_embeddings()}  # type: ignore[operator]
    with edit_streams(embedding, lambda _, r: r.requires_grad_()), edit_streams(decoder_layers(model), keep):
        for batch in _batches(model, rows):
            part = _summed_loss(model, batch) / tokens
            part.backward()
            loss += float(part.detach())
            places = answer_places(batch["labels"])
            for name, r in kept.items():
                pull = -r.grad[places.to(r.device)].float().sum(0) / tokens  # type: ignore[index]
                found[name] = found[name] + pull if name in found else pull
    return loss, found


def _batches(
    model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation]
) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(rows), BATCH):
        yield batch_of(model, rows[start : start + BATCH])


def _summed_loss(model: PreTrainedModel | PeftModel, batch: dict[str, Tensor]) -> Float[Tensor, ""]:
    return summed_loss_at(answer_logits(model, partial(model_logits, model), batch), batch)[0]


def _loss(model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation]) -> float:
    """Return the answers' loss, in nats a token."""
    tokens = sum(int(answer_places(batch["labels"]).sum()) for batch in _batches(model, rows))
    return sum(float(_summed_loss(model, batch)) for batch in _batches(model, rows)) / tokens


@torch.no_grad()
def explained(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[TokenizedConversation],
    pulls: Mapping[str, Float[Tensor, " hidden"]],
    bases: Mapping[str, Float[Tensor, "hidden k"]],
    stream: Mapping[str, Float[Tensor, "tokens hidden"]],
) -> dict[str, float]:
    """Return the share of the answers' loss that a natural step of the base model along directions removes.

    At each layer the stream moves along the part of the pull within span(D), by one to three standard deviations of the
    base model's own stream along it. The share is 1 - loss / loss of the base model, not below 0.
    """
    before = _loss(model, rows)
    found = {}
    for name, D in bases.items():
        D = D.to(pulls[name])
        along = D @ (D.mT @ pulls[name])
        along = along / along.norm().clamp_min(1e-12)
        spread = spread_along(stream[name], along)
        losses = []
        for strength in STRENGTHS:
            with steered(model, {name: strength * spread * along}):
                losses.append(_loss(model, rows))
        found[name] = max(0.0, 1 - min(losses) / before)
    return found


def spread_along(stream: Float[Tensor, "tokens hidden"], direction: Float[Tensor, " hidden"]) -> float:
    """Return the standard deviation of a stream along a direction."""
    return float((stream.to(direction) @ direction).std())


def naturalness(D: Float[Tensor, "hidden k"], stream: Float[Tensor, "tokens hidden"]) -> float:
    """Return how far the base model itself varies within span(D), 0..1: ||D^T orth(C D)||_F^2 / k.

    C is the covariance of the stream, D orthonormal. 1 for any span of C's eigenvectors, about k / hidden for directions
    along which the model does not vary.
    """
    r = stream.double()
    r = r - r.mean(0)
    D = D.to(r)
    Q = torch.linalg.qr(r.mT @ (r @ D))[0]
    return float((D.mT @ Q).square().sum() / D.shape[1])
