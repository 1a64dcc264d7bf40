"""What passes through a model's residual stream while it predicts answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from graspl.adapters.base_model import load_adapter, load_base_model, load_tokenizer
from graspl.adapters.files import AdapterFolder
from graspl.adapters.residual import decoder_layers
from graspl.data.batches import PaddedCollator
from graspl.data.rows import read_conversations
from graspl.data.tokens import TokenizedConversation, tokenize, with_chat_template
from graspl.directions.file import LayerDirections
from graspl.errors import GrasplError
from graspl.evaluation.logprobs import answer_mask

Stream = dict[str, Float[Tensor, "tokens hidden"]]
"""By layer, (tokens, hidden): the residual stream after the layer."""


@contextmanager
def opened(
    adapter: AdapterFolder, *, adapted: bool, dtype: str = "auto"
) -> Iterator[tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]]:
    """Give the model that an adapter sits on, in evaluation mode and without gradients, and its tokenizer.

    Args:
        adapter: on disk, or with a live model, which is left as it was.
        adapted: with the adapter; without it the base model alone.
        dtype: of weights that must be loaded.

    Raises:
        GrasplError: the model cannot be loaded.
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
        with torch.no_grad():
            if adapted:
                yield model, adapter.live.tokenizer
            else:
                with model.disable_adapter():
                    yield model, adapter.live.tokenizer
    finally:
        model.train(training)


def text_of(
    adapter: AdapterFolder,
    source: str | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    limit: int,
    max_length: int,
) -> list[TokenizedConversation]:
    """Return unlabelled text: of a file or `datasets` name, or the task's own where none is named.

    Raises:
        GrasplError: the source cannot be read, or none is named and the task has none.
    """
    if source is not None:
        return tokenized(source, tokenizer, limit=limit, max_length=max_length)
    own = list(adapter.live.text)[:limit] if adapter.live is not None else []
    if not own:
        raise GrasplError(
            "text: names no text, and the task brings none; set text of the identification (graspl identify: --method.text) "
            "to a file of unlabelled conversations by many writers"
        )
    return own


def tokenized(
    source: str, tokenizer: PreTrainedTokenizerBase, *, limit: int, max_length: int
) -> list[TokenizedConversation]:
    """Read conversations and cut what is longer than max_length tokens.

    Raises:
        GrasplError: the source cannot be read, or a row is broken.
    """
    rows = [
        tokenize(tokenizer, row.messages, origin=row.origin)
        for row in read_conversations(source, limit=limit)
    ]
    return [
        TokenizedConversation(row.input_ids[:max_length], row.labels[:max_length], row.prompt) for row in rows
    ]


def streams(
    model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation], *, batch_size: int = 16
) -> Iterator[Stream]:
    """Yield, batch by batch, the stream where answer tokens are predicted.

    Hooks are used since `output_hidden_states` gives the last layer's only after the final norm.

    Args:
        model: without gradients.
        rows: conversations.
        batch_size: rows a forward pass.
    """
    config = model.config
    collate = PaddedCollator(getattr(config, "pad_token_id", None) or 0)
    device = next(model.parameters()).device
    for start in range(0, len(rows), batch_size):
        batch = collate(rows[start : start + batch_size])
        mask = answer_mask(batch, batch["labels"].shape[1])
        kept: Stream = {}
        hooks = [
            layer.register_forward_hook(lambda _m, _i, out, name=name: kept.__setitem__(name, _at(out, mask)))  # noqa: B023
            for name, layer in decoder_layers(model).items()
        ]
        try:
            model(
                input_ids=batch["input_ids"].to(device),
                attention_mask=batch["attention_mask"].to(device),
                use_cache=False,
            )
        finally:
            for hook in hooks:
                hook.remove()
        yield kept


def gathered(model: PreTrainedModel | PeftModel, rows: Sequence[TokenizedConversation]) -> Stream:
    """Return all that `streams` yields, put together, on the CPU."""
    parts: dict[str, list[Tensor]] = {}
    for stream in streams(model, rows):
        for layer, r in stream.items():
            parts.setdefault(layer, []).append(r.cpu())
    return {layer: torch.cat(each) for layer, each in parts.items()}


def leading_directions(differences: Stream, k: int) -> dict[str, LayerDirections]:
    """Return each layer's first k right singular vectors of rows of differences, whose mean is not taken out.

    A singular vector has no sign of its own; it is given the one along which the mean difference points.

    Args:
        differences: by layer, (tokens, hidden).
        k: directions a layer.

    Raises:
        GrasplError: they span fewer than k.
    """
    found = {}
    for layer, parts in differences.items():
        S, Vh = torch.linalg.svd(parts, full_matrices=False)[1:]
        if not 1 <= k <= len(S):
            raise GrasplError(f"method.k: {k} directions, but the rows span {len(S)} at {layer}")
        D = Vh[:k].mT
        found[layer] = LayerDirections(torch.where(parts.mean(0) @ D < 0, -D, D).contiguous(), S)
    return found


def _at(output: Any, mask: Tensor) -> Tensor:
    stream = output[0] if isinstance(output, tuple) else output
    return stream[mask.to(stream.device)].float()
