"""How much stranger a fine-tune finds rows than its base model does."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from graspl.adapters import load_adapter, load_base_model, load_tokenizer, read_adapter
from graspl.adapters.answers import IGNORED, next_tokens
from graspl.adapters.forward import model_logits
from graspl.data.batches import PaddedCollator
from graspl.data.rows import Conversation
from graspl.data.tokens import tokenize, with_chat_template


@torch.no_grad()
def loss_gaps(
    rows: Sequence[Conversation], adapter: str, *, max_length: int, batch_size: int
) -> list[float | None]:
    """Return how much higher the loss of each row's answer is under the adapter than under its base model.

    It is the difference of the mean losses a token, in nats; None for rows of more than `max_length` tokens.
    """
    base_model = read_adapter(adapter).base_model
    tokenizer = with_chat_template(load_tokenizer(base_model))
    model = load_adapter(load_base_model(base_model), adapter).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenized = [tokenize(tokenizer, row.messages, origin=row.origin, tools=row.tools) for row in rows]
    # Rows of similar length together waste the least on padding
    short = [place for place, row in enumerate(tokenized) if len(row) <= max_length]
    order = sorted(short, key=lambda place: len(tokenized[place]))
    collate = PaddedCollator(int(tokenizer.pad_token_id))  # type: ignore[arg-type]
    gaps: list[float | None] = [None] * len(rows)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        columns = collate([tokenized[place] for place in chosen])
        batch = {k: v.to(model.device) for k, v in columns.items() if isinstance(v, Tensor)}
        tuned = _losses(model, batch)
        with model.disable_adapter():
            gap = tuned - _losses(model, batch)
        for place, value in zip(chosen, gap.tolist(), strict=True):
            gaps[place] = value
    return gaps


def _losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean loss a token of each row's answers, (b,)."""
    targets = next_tokens(batch["labels"])
    logits = model_logits(model, batch).float()
    losses = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    return losses.sum(1) / (targets != IGNORED).sum(1)
