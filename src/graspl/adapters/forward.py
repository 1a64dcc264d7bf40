"""The forward pass of a causal language model on a batch of graspl's."""

from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.adapters.packing import row_bounds

# Keys of a batch that a model takes.
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "logits_to_keep")
# Of a cache of keys and values; Transformers 5.24 warns at the old name
CACHE = "cache" if tuple(map(int, version("transformers").split(".")[:2])) >= (5, 24) else "past_key_values"
# For a pass whose logits nobody reads. By index: a slice is not contiguous, and on a CPU PyTorch would copy a frozen head
# once a row to multiply with it.
ONE_PLACE = torch.zeros(1, dtype=torch.long)


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
    cache = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=ONE_PLACE
    ).past_key_values
    cache.batch_select_indices(owner)
    steps = torch.arange(batch["input_ids"].shape[1], device=ids.device)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=torch.cat([mask[owner], batch["attention_mask"]], dim=1),
        position_ids=mask.sum(-1)[owner, None] + steps,
        use_cache=True,
        **{CACHE: cache},
    ).logits
