"""The training loss of every method."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from graspl.adapters.answers import IGNORED, answer_places


def summed_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of logits (b, L, vocabulary), in nats, summed over the answer tokens, and their number."""
    targets = labels[:, 1:]
    total = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="sum")
    return total, (targets != -100).sum()


@contextmanager
def logits_only_at(model: Any, index: Tensor, of: int | None = None) -> Iterator[None]:
    """Let a causal language model work out logits at n places alone, counted row after row: row times L plus column.

    Within the block the model's logits are (1, n, vocabulary) where a module makes them, else (b, L, vocabulary) as ever. A
    pass over another number of places than `of` (that of a shared prefix) is left as it is.
    """

    def pick(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        stream = inputs[0].flatten(0, -2)
        if of is not None and len(stream) != of:
            return None
        return stream.index_select(0, index.to(stream.device)).unsqueeze(0), *inputs[1:]

    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(pick) if head is not None else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def answer_logits(model: Any, forward: Callable[[dict[str, Any]], Tensor], batch: dict[str, Any]) -> Tensor:
    """Return the logits that predict the n answer tokens of a batch, (n, vocabulary), row after row; no others are computed.

    Args:
        model: the causal language model that `forward` runs.
        forward: returns a batch's logits, (b, L, vocabulary).
        batch: with `labels`, and `answer_index` where the host knows it.
    """
    index = _answer_index(batch)
    with logits_only_at(model, index):
        found = forward(batch).flatten(0, 1)
    return found if len(found) == len(index) else found.index_select(0, index.to(found.device))


def summed_loss_at(logits: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return what `summed_loss` does, of a batch's `answer_logits`, (n, vocabulary)."""
    # A place predicts the token after it; the last of a row predicts nothing and is not among them
    targets = batch["labels"].flatten().index_select(0, _answer_index(batch).to(batch["labels"].device) + 1)
    return F.cross_entropy(logits.float(), targets, reduction="sum"), (targets != IGNORED).sum()


def _answer_index(batch: dict[str, Any]) -> Tensor:
    index: Tensor | None = batch.get("answer_index")
    return answer_places(batch["labels"]).flatten().nonzero()[:, 0] if index is None else index
