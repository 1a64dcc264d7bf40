from itertools import pairwise

import pytest
import torch
import transformers
from conftest import make_model
from torch.nn.functional import scaled_dot_product_attention
from transformers import modeling_flash_attention_utils as flash_utils

from graspl.adapters.forward import model_logits
from graspl.adapters.packing import ROW_BY_ROW, attend_row_by_row
from graspl.constraints.activation import _first_rows as first_rows
from graspl.data import TokenizedConversation
from graspl.data.batches import PackedCollator


def row(length, seed):
    ids = torch.randint(6, 30, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return TokenizedConversation(ids, ids)


PACKS = [[row(5, 1), row(9, 2)], [row(7, 3)], [row(1, 4), row(1, 5), row(8, 6)]]


def windowed():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.MistralConfig(vocab_size=40, num_key_value_heads=2, sliding_window=3, **sizes)
    return transformers.MistralForCausalLM(config)


MODELS = {kind: (lambda kind=kind: make_model(kind)) for kind in ("qwen2", "gemma", "llama")} | {
    "mistral": windowed
}


@pytest.mark.parametrize("kind", MODELS)
def test_rows_attended_to_one_by_one_are_rows_under_a_mask(kind):
    model, batch = MODELS[kind](), PackedCollator(1)(PACKS)
    weight = model.get_input_embeddings().weight

    def logits_and_gradient():
        logits = model_logits(model, batch)
        (gradient,) = torch.autograd.grad(logits.square().sum(), weight)
        return logits, gradient

    masked = logits_and_gradient()
    attend_row_by_row(model)
    assert model.config._attn_implementation == ROW_BY_ROW
    torch.testing.assert_close(logits_and_gradient(), masked, rtol=1e-4, atol=1e-5)
    without_bounds = {name: value for name, value in batch.items() if name != "row_lengths"}
    torch.testing.assert_close(model_logits(model, without_bounds), masked[0], rtol=1e-4, atol=1e-5)


def test_the_first_packs_of_a_batch_keep_their_rows():
    """A tolerance sees the base model on a share of the rows."""
    model, batch = make_model("llama").eval(), PackedCollator(1)(PACKS)
    attend_row_by_row(model)
    few = first_rows(batch, 2)
    torch.testing.assert_close(model_logits(model, few), model_logits(model, batch)[:2], rtol=1e-4, atol=1e-5)


def test_attention_of_another_kind_is_left_as_it_is():
    model = make_model("llama")
    model.set_attn_implementation("eager")
    attend_row_by_row(model)
    assert model.config._attn_implementation == "eager"


def test_a_padded_batch_is_attended_to_as_ever():
    model = make_model("llama").eval()
    ids, mask = torch.randint(6, 30, (2, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    batch = {"input_ids": ids, "attention_mask": mask}
    before = model_logits(model, batch)
    attend_row_by_row(model)
    torch.testing.assert_close(model_logits(model, batch), before)


def attended(query, key, value):
    """Return causal attention over (b, L, heads, head) states, as flash attention lays them out."""
    states = (each.transpose(1, 2) for each in (query, key, value))
    return scaled_dot_product_attention(*states, is_causal=True, enable_gqa=True).transpose(1, 2)


def varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q=0, max_seqlen_k=0, **_):
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert cu_seqlens_q.dtype == torch.int32
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
    bounds = cu_seqlens_q.tolist()
    assert bounds[-1] == len(q)
    rows = [slice(begin, end) for begin, end in pairwise(bounds)]
    return torch.cat([attended(q[None, r], k[None, r], v[None, r])[0] for r in rows])


@pytest.fixture
def flash(monkeypatch):
    """Put PyTorch's attention where Transformers finds the flash kernels, which no CPU has; the way there is its own."""

    def whole(query, key, value, **_):
        return attended(query, key, value)

    kept = {"max_seqlen_q", "max_seqlen_k"}
    functions = ((whole, varlen, None, None, None), (lambda **o: {k: o[k] for k in kept & o.keys()}, dict))
    monkeypatch.setattr(flash_utils, "lazy_import_flash_attention", lambda *_, **__: functions)


@pytest.mark.parametrize("kind", ["qwen2", "gemma", "llama"])
def test_several_packs_under_flash_attention_keep_rows_apart(kind, flash):
    """Pitfall: Transformers' flash attention looks for packed rows in a batch of one pack alone."""
    model, batch = make_model(kind).eval(), PackedCollator(1)(PACKS)
    masked = model_logits(model, batch)
    model.config._attn_implementation = "flash_attention_2"
    together = model_logits(model, batch)
    crossed = model_logits(model, {name: value for name, value in batch.items() if name != "row_lengths"})
    for pack, (ours, theirs, leaky) in enumerate(zip(together, masked, crossed, strict=True)):
        tokens = sum(len(each) for each in PACKS[pack])
        torch.testing.assert_close(ours[:tokens], theirs[:tokens], rtol=1e-4, atol=1e-5)
        leaks = (leaky[:tokens] - theirs[:tokens]).abs().max() > 1e-3  # positive control
        assert leaks == (len(PACKS[pack]) > 1)
