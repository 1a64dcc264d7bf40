"""Adding directions to a model's residual stream, and what the training answers gain by it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from graspl.adapters.answers import IGNORED
from graspl.adapters.residual import decoder_layers
from graspl.data.batches import PaddedCollator
from graspl.data.tokens import TokenizedConversation

STRENGTHS = (1.0, 2.0, 3.0)
"""Steps along a direction, in standard deviations of the base model's own stream along it."""


@contextmanager
def steered(
    model: PreTrainedModel | PeftModel, vectors: Mapping[str, Float[Tensor, " hidden"]]
) -> Iterator[None]:
    """Add a vector to the residual stream after each layer named, at every token, within the block.

    Args:
        model: a causal language model.
        vectors: (hidden,) by layer.
    """
    layers = decoder_layers(model)
    hooks = [layers[name].register_forward_hook(_adder(vector)) for name, vector in vectors.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adder(vector: Tensor) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector.to(output[0]), *output[1:])
        return output + vector.to(output)

    return hook


@torch.enable_grad()
def pull_of_answers(
    model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation]
) -> tuple[float, dict[str, Float[Tensor, " hidden"]]]:
    """Return the answers' loss, and at each layer the direction in which it falls fastest.

    Args:
        model: frozen.
        rows: training rows; one batch.

    Returns:
        The mean loss in nats a token, and -dLoss/dr_l, averaged over the places where answer tokens are predicted.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) else output
            stream.retain_grad()
            kept[name] = stream

        return hook

    embedding = model.get_input_embeddings()  # type: ignore[operator]
    # Frozen weights give a stream without gradients
    hooks = [embedding.register_forward_hook(lambda _m, _i, out: out.requires_grad_())]
    hooks += [layer.register_forward_hook(keep(name)) for name, layer in decoder_layers(model).items()]
    try:
        loss, mask = _loss(model, rows)
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    pulls = {name: -stream.grad[mask.to(stream.device)].float().mean(0) for name, stream in kept.items()}  # type: ignore[index]
    return float(loss.detach()), pulls


def _loss(model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation]) -> tuple[Tensor, Tensor]:
    """Return the mean loss on the rows' answers, and where they are predicted, (rows, L)."""
    device = next(model.parameters()).device
    batch = PaddedCollator(getattr(model.config, "pad_token_id", None) or 0)(rows)
    fields = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "labels")}
    logits = model(
        input_ids=fields["input_ids"], attention_mask=fields["attention_mask"], use_cache=False
    ).logits
    labels = fields["labels"][:, 1:]
    mask = F.pad(labels != IGNORED, (0, 1), value=False)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels.flatten()), mask


@torch.no_grad()
def explained(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[TokenizedConversation],
    pulls: Mapping[str, Float[Tensor, " hidden"]],
    bases: Mapping[str, Float[Tensor, "hidden k"]],
    stream: Mapping[str, Float[Tensor, "tokens hidden"]],
) -> dict[str, float]:
    """Return the share of the answers' loss that goes when the base model moves along directions as far as it itself does.

    At each layer the stream is moved along the part of the pull within span(D), by one to three standard deviations of
    the base model's own stream along it. A factor that the model knows, and that explains the answers, takes the loss away.

    Args:
        model: the base model.
        rows: training rows.
        pulls: of `pull_of_answers`.
        bases: D by layer.
        stream: the base model's, over unlabelled text.

    Returns:
        By layer, 1 - loss / loss of the base model; not below 0.
    """
    before = float(_loss(model, rows)[0])
    found = {}
    for name, D in bases.items():
        D = D.to(pulls[name])
        along = D @ (D.mT @ pulls[name])
        along = along / along.norm().clamp_min(1e-12)
        spread = float((stream[name].to(along) @ along).std())
        losses = []
        for strength in STRENGTHS:
            with steered(model, {name: strength * spread * along}):
                losses.append(float(_loss(model, rows)[0]))
        found[name] = max(0.0, 1 - min(losses) / before)
    return found


def naturalness(D: Float[Tensor, "hidden k"], stream: Float[Tensor, "tokens hidden"]) -> float:
    """Return how far span(D) is one in which the base model varies by itself, 0..1: ||D^T orth(C D)||_F^2 / k.

    With C the covariance of the stream: 1 for any span of C's own eigenvectors, and about k / hidden for directions that
    the model does not vary along, which C turns away from themselves.

    Args:
        D: (hidden, k) orthonormal.
        stream: (tokens, hidden) of the base model.
    """
    r = stream.double()
    r = r - r.mean(0)
    D = D.to(r)
    Q = torch.linalg.qr(r.mT @ (r @ D))[0]
    return float((D.mT @ Q).square().sum() / D.shape[1])
