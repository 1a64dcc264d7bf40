"""Log-probabilities of answers, and the divergence from the base model."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from graspl.adapters.answers import IGNORED, answer_places, next_tokens

_HELD_LOGITS = 2**26  # Logits that become log-probabilities at a time, 256 MiB of them


def candidate_logprobs(
    logits: Float[Tensor, "rows length vocab"], batch: dict[str, Any]
) -> Float[Tensor, " c"]:
    """Return each candidate's log-probability summed over its tokens, (c,), in nats, float64.

    Args:
        logits: (rows, L, vocabulary), of `batch["input_ids"]`.
        batch: made by `graspl.data.ChoiceCollator`.
    """
    every = torch.arange(logits.shape[0] * logits.shape[1], device=logits.device)
    return candidate_logprobs_at(logits.flatten(0, 1), every.view(logits.shape[:2]), batch)


def candidate_logprobs_at(
    logits: Float[Tensor, "n vocab"], numbers: Int[Tensor, "rows length"], batch: dict[str, Any]
) -> Float[Tensor, " c"]:
    """Return what `candidate_logprobs` does, of logits at some places alone; `numbers` says which place each is of."""
    ids: Tensor = batch["candidate_ids"]  # (c, m)
    steps = torch.arange(ids.shape[1], device=ids.device)
    # Padding steps may point past the row's end; their value is dropped below
    places = (batch["candidate_start"][:, None] + steps).clamp_max(numbers.shape[1] - 1)
    kept = ids != IGNORED
    # Answers may be long: do not hold all their distributions over the vocabulary at once
    chunk = max(1, _HELD_LOGITS // (ids.shape[1] * logits.shape[-1]))
    found = []
    for part in torch.arange(len(ids), device=ids.device).split(chunk):
        # Only places that count: padding would cost a pass over the vocabulary
        here = kept[part]
        scores = logits[
            numbers[batch["candidate_row"][part, None].expand_as(here)[here], places[part][here]]
        ].float()
        chosen = scores.gather(-1, ids[part][here][:, None]).squeeze(-1)
        # In float64 from here: a sum over a long answer loses digits
        picked = torch.zeros_like(here, dtype=torch.float64)
        picked[here] = chosen.double() - scores.logsumexp(-1).double()
        found.append(picked.sum(-1))
    return torch.cat(found)


def answer_mask(batch: dict[str, Any], length: int) -> Bool[Tensor, "rows length"]:
    """Return the places whose logits, `length` of them a row, predict an answer token."""
    if "labels" in batch:
        return answer_places(batch["labels"])
    ids: Tensor = batch["candidate_ids"]
    mask = torch.zeros(batch["input_ids"].shape[0], length, dtype=torch.bool, device=ids.device)
    candidate, step = (ids != IGNORED).nonzero(as_tuple=True)
    mask[batch["candidate_row"][candidate], batch["candidate_start"][candidate] + step] = True
    return mask


def distinct_places(batch: dict[str, Any], mask: Bool[Tensor, "rows length"]) -> Bool[Tensor, "rows length"]:
    """Return of the places of `answer_mask` those that no other one repeats, (rows, L).

    Answers to one question that begin alike may stand in several rows, and the place before all of them is in each row.
    """
    if "labels" in batch:
        return mask
    ids: Tensor = batch["candidate_ids"]
    distinct = torch.zeros_like(mask)
    steps = torch.arange(ids.shape[1], device=ids.device)
    candidate, step = ((ids != IGNORED) & (steps >= batch["candidate_fresh"][:, None])).nonzero(as_tuple=True)
    distinct[batch["candidate_row"][candidate], batch["candidate_start"][candidate] + step] = True
    return distinct


def kl_to_base(
    logits: Float[Tensor, "rows length vocab"],
    base_logits: Float[Tensor, "rows length vocab"],
    mask: Bool[Tensor, "rows length"],
) -> Float[Tensor, " n"]:
    """Return KL(model || base) over the whole vocabulary at each of the n masked places, (n,) in nats a token.

    Args:
        logits: (rows, L, vocabulary), with the adapter.
        base_logits: the same without it.
        mask: (rows, L), the places that count.
    """
    ours, theirs = logits[mask].float().log_softmax(-1), base_logits[mask].float().log_softmax(-1)
    return F.kl_div(theirs, ours, log_target=True, reduction="none").sum(-1)


def text_scores(
    logits: Float[Tensor, "rows length vocab"], labels: Int[Tensor, "rows length"]
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return each answer token's loss in nats, (n,), and whether it is the most probable token, (n,)."""
    return text_scores_at(logits[answer_places(labels)], labels)


def text_scores_at(
    logits: Float[Tensor, "n vocab"], labels: Int[Tensor, "rows length"]
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return what `text_scores` does, of the logits where answer tokens are predicted alone."""
    chosen, targets = logits.float(), next_tokens(labels)[answer_places(labels)]
    return F.cross_entropy(chosen, targets, reduction="none"), chosen.argmax(-1) == targets


def at_places(
    logits: Float[Tensor, "rows length vocab"], mask: Bool[Tensor, "rows length"]
) -> Float[Tensor, "n vocab"]:
    """Return the logits at the n masked places, which `logits_only_at` may have picked already."""
    flat = logits.flatten(0, -2)
    return flat if len(flat) == int(mask.sum()) else flat[mask.flatten()]
