"""Tiny random models of many families of Transformers, in folders, each with a tokenizer."""

import torch
import transformers
from conftest import SPECIAL, WORDS, make_tokenizer

COMMON = {
    "vocab_size": len(SPECIAL) + len(WORDS), "pad_token_id": 1, "bos_token_id": None, "eos_token_id": 2,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
GATED = {"intermediate_size": 48, "num_key_value_heads": 2}
FAMILIES = {
    "llama": (transformers.LlamaConfig, GATED),
    "opt": (transformers.OPTConfig, {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 512}),
    "lfm2": (transformers.Lfm2Config, {**GATED, "layer_types": ["conv", "full_attention"]}),
    "bloom": (transformers.BloomConfig, {"n_layer": 2, "n_head": 4}),
}  # fmt: skip


def family_folder(kind, folder):
    """Write a model of a family with a tokenizer, and return the folder."""
    make, sizes = FAMILIES[kind]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(make(**(COMMON | sizes)))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
