"""What passes through a model's residual stream while it predicts answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from graspl.adapters import AdapterFolder, decoder_layers, load_adapter, load_base_model, load_tokenizer
from graspl.adapters.answers import answer_places
from graspl.adapters.forward import model_logits
from graspl.adapters.loss import logits_only_at
from graspl.adapters.streams import edit_streams
from graspl.data.batches import PaddedCollator
from graspl.data.rows import read_conversations
from graspl.data.tokens import TokenizedConversation, tokenize, with_chat_template
from graspl.directions.file import LayerDirections
from graspl.directions.identify import leading

# By layer, (tokens, hidden): the residual stream after the layer.
Stream = dict[str, Float[Tensor, "tokens hidden"]]


@contextmanager
def opened(
    adapter: AdapterFolder, *, adapted: bool, dtype: str = "auto"
) -> Iterator[tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]]:
    """Give the model with or without an adapter, in evaluation mode and without gradients, and its tokenizer.

    A live model is put back as it was; weights that must be loaded get the dtype.
    """
    if adapter.live is None:
        tokenizer = with_chat_template(load_tokenizer(adapter.base_model))
        model: Any = load_base_model(adapter.base_model, dtype=dtype).eval()
        model = load_adapter(model, str(adapter.path)).eval() if adapted else model
        with torch.no_grad():
            yield model, tokenizer
        return
    model, training = adapter.live.model, adapter.live.model.training
    model.eval()
    try:
        with torch.no_grad(), nullcontext() if adapted else model.disable_adapter():
            yield model, adapter.live.tokenizer
    finally:
        model.train(training)


def tokenized(
    source: str, tokenizer: PreTrainedTokenizerBase, *, limit: int, max_length: int
) -> list[TokenizedConversation]:
    """Read conversations, and cut them off after max_length tokens."""
    rows = [
        tokenize(tokenizer, row.messages, origin=row.origin, tools=row.tools)
        for row in read_conversations(source, limit=limit)
    ]
    return [
        TokenizedConversation(row.input_ids[:max_length], row.labels[:max_length], row.prompt) for row in rows
    ]


def batch_of(model: Any, rows: Sequence[TokenizedConversation]) -> dict[str, Tensor]:
    """Return rows as one padded batch on the model's device: `input_ids`, `attention_mask` and `labels`, (rows, L) each."""
    batch = PaddedCollator(getattr(model.config, "pad_token_id", None) or 0)(rows)
    device = next(model.parameters()).device
    return {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "labels")}


def streams(
    model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation], *, batch_size: int = 16
) -> Iterator[Stream]:
    """Yield, batch by batch, the stream where answer tokens are predicted.

    `output_hidden_states` would give the last layer's stream only after the final norm.
    """
    for start in range(0, len(rows), batch_size):
        yield _stream(model, batch_of(model, rows[start : start + batch_size]))


def _stream(model: PreTrainedModel | PeftModel, batch: dict[str, Tensor]) -> Stream:
    places, kept = answer_places(batch["labels"]), {}

    def keep(layer: str, stream: Tensor) -> None:
        kept[layer] = stream[places.to(stream.device)].float()

    nowhere = torch.zeros(1, dtype=torch.long)  # Nobody reads the logits
    with edit_streams(decoder_layers(model), keep), logits_only_at(model, nowhere):
        model_logits(model, batch)
    return kept


def gathered(model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation]) -> Stream:
    """Return all that `streams` yields, put together, on the CPU."""
    parts: dict[str, list[Tensor]] = {}
    for stream in streams(model, rows):
        for layer, r in stream.items():
            parts.setdefault(layer, []).append(r.cpu())
    return {layer: torch.cat(each) for layer, each in parts.items()}


def leading_directions(after: Stream, before: Stream, k: int) -> dict[str, LayerDirections]:
    """Return the first k right singular vectors of after - before at each layer, (tokens, hidden); the mean stays in.

    A singular vector has no sign of its own; it gets the one along which the mean difference points.
    """
    found = {}
    for layer, stream in after.items():
        difference = stream - before[layer]
        S, Vh = torch.linalg.svd(difference, full_matrices=False)[1:]
        D = Vh[leading(len(S), f"the rows at {layer}", k=k)].mT
        found[layer] = LayerDirections(torch.where(difference.mean(0) @ D < 0, -D, D), S)
    return found
