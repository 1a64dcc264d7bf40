"""Attention over packs, in which each row attends only to itself."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ROW_BY_ROW = "sdpa_row_by_row"  # Transformers' name of the attention that `attend_row_by_row` sets


def attend_row_by_row(model: Any) -> None:
    """Let a model on a CPU attend within each row of a pack, instead of masking a square over the whole pack.

    Nothing changes for batches that are not packed, and for models without PyTorch's `scaled_dot_product_attention`.
    """
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ROW_BY_ROW)


def row_bounds(model: Any, row_lengths: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    """Return the flash attention options that say where the rows of packs laid end to end begin; none for other attention.

    Flash attention alone would find rows in `position_ids` only where a batch is one pack.
    """
    attention = model.config._attn_implementation or ""
    if attention != ROW_BY_ROW and "flash" not in attention:
        return {}
    lengths = [length for pack in row_lengths for length in pack]
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32, non_blocking=True)
    longest = max(lengths)
    return {
        "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip


def _row_by_row(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as `sdpa` does, (b, heads, L, head) to (b, L, heads, head), to each row's own block of the mask."""
    if cu_seq_lens_q is None or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    length, attended = query.shape[2], []
    for begin, end in zip(cu_seq_lens_q[:-1].tolist(), cu_seq_lens_q[1:].tolist(), strict=True):
        pack, row = begin // length, slice(begin % length, (end - 1) % length + 1)
        q, k, v = (states[pack : pack + 1, :, row] for states in (query, key, value))
        # What a window or a chunk lets a row see of itself is in its block
        block = attention_mask[pack : pack + 1, :, row, row]
        attended.append(sdpa_attention_forward(module, q, k, v, block, **options)[0])
    return torch.cat(attended, dim=1).view(len(query), length, *attended[0].shape[2:]), None


AttentionInterface.register(ROW_BY_ROW, _row_by_row)
AttentionMaskInterface.register(ROW_BY_ROW, sdpa_mask)
