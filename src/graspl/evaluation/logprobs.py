"""Log-probabilities of answers, and the divergence from the base model."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from graspl.adapters.packing import row_bounds
from graspl.data.tokens import IGNORED

_HELD_LOGITS = 2**26
"""Logits that are turned into log-probabilities at a time, 256 MiB of them."""
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "logits_to_keep")
"""Keys of a batch that a model takes."""


def model_logits(model: Any, batch: dict[str, Any]) -> Float[Tensor, "rows length vocab"]:
    """Return a causal language model's logits on a batch, (rows, L, vocabulary); shared prefixes are run once."""
    if "prefix_ids" in batch:
        return _continued_logits(model, batch)
    inputs = {key: batch[key] for key in MODEL_INPUTS if key in batch}
    if "row_lengths" in batch:
        inputs |= row_bounds(model, batch["row_lengths"], batch["input_ids"].device)
    # Without a cache Transformers sees from the positions where packed rows begin
    return model(**inputs, use_cache=False).logits


def _continued_logits(model: Any, batch: dict[str, Any]) -> Float[Tensor, "rows length vocab"]:
    """Run the prefixes, give every row the keys and values of its own, and run the rows from there."""
    ids, mask, owner = batch["prefix_ids"], batch["prefix_mask"], batch["row_prefix"]
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    # Of the prefix no logits are needed; one place is the least that can be asked for
    cache = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
    ).past_key_values
    cache.batch_select_indices(owner)
    steps = torch.arange(batch["input_ids"].shape[1], device=ids.device)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=torch.cat([mask[owner], batch["attention_mask"]], dim=1),
        position_ids=mask.sum(-1)[owner, None] + steps,
        past_key_values=cache,
        use_cache=True,
    ).logits


def candidate_logprobs(
    logits: Float[Tensor, "rows length vocab"], batch: dict[str, Any]
) -> Float[Tensor, " c"]:
    """Return the log-probability of each candidate answer, summed over its tokens.

    Args:
        logits: (rows, L, vocabulary), of `batch["input_ids"]`.
        batch: made by `graspl.data.collate_choices`.

    Returns:
        (c,) in nats, float32.
    """
    ids: Tensor = batch["candidate_ids"]  # (c, m)
    steps = torch.arange(ids.shape[1], device=ids.device)
    # Padding steps may point past the row's end; their value is dropped below
    places = (batch["candidate_start"][:, None] + steps).clamp_max(logits.shape[1] - 1)
    kept = ids != IGNORED
    # Whole answers are long: their distributions over the vocabulary are not all held at once
    chunk = max(1, _HELD_LOGITS // (ids.shape[1] * logits.shape[-1]))
    found = []
    for part in torch.arange(len(ids), device=ids.device).split(chunk):
        scores = logits[batch["candidate_row"][part, None], places[part]].float().log_softmax(-1)
        picked = scores.gather(-1, ids[part].clamp_min(0)[..., None]).squeeze(-1)
        found.append((picked * kept[part]).sum(-1))
    return torch.cat(found)


def candidate_lengths(batch: dict[str, Any]) -> Int[Tensor, " c"]:
    """Return the number of tokens of each candidate, (c,).

    Args:
        batch: made by `graspl.data.collate_choices`.
    """
    return (batch["candidate_ids"] != IGNORED).sum(-1)


def answer_mask(batch: dict[str, Any], length: int) -> Bool[Tensor, "rows length"]:
    """Return the places whose logits predict a token of an answer, each place once.

    Args:
        batch: of choices or of text.
        length: L of the logits.
    """
    if "labels" in batch:
        # The logits at t predict the token at t + 1
        return F.pad(batch["labels"][:, 1:] != IGNORED, (0, 1), value=False)
    ids: Tensor = batch["candidate_ids"]
    mask = torch.zeros(batch["input_ids"].shape[0], length, dtype=torch.bool, device=ids.device)
    candidate, step = (ids != IGNORED).nonzero(as_tuple=True)
    mask[batch["candidate_row"][candidate], batch["candidate_start"][candidate] + step] = True
    return mask


def kl_to_base(
    logits: Float[Tensor, "rows length vocab"],
    base_logits: Float[Tensor, "rows length vocab"],
    mask: Bool[Tensor, "rows length"],
) -> Float[Tensor, " n"]:
    """Return KL(model || base) at each masked place, over the whole vocabulary.

    Args:
        logits: (rows, L, vocabulary), of the fine-tuned model.
        base_logits: the same places, adapter off.
        mask: (rows, L), the n places that count.

    Returns:
        (n,) in nats a token, not below 0 but for rounding.
    """
    ours, theirs = logits[mask].float().log_softmax(-1), base_logits[mask].float().log_softmax(-1)
    return F.kl_div(theirs, ours, log_target=True, reduction="none").sum(-1)


def text_scores(
    logits: Float[Tensor, "rows length vocab"], labels: Int[Tensor, "rows length"]
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return the loss and the greedy hit of each answer token under teacher forcing.

    Args:
        logits: (rows, L, vocabulary).
        labels: (rows, L), -100 off the answers.

    Returns:
        (n,) losses in nats and (n,) whether the most probable token is the right one.
    """
    shifted = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    kept = shifted != IGNORED
    chosen, targets = logits[kept].float(), shifted[kept]
    return F.cross_entropy(chosen, targets, reduction="none"), chosen.argmax(-1) == targets
