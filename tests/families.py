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
    "gpt2": (transformers.GPT2Config, {"n_layer": 2, "n_head": 4, "n_embd": 32}),
    "falcon": (transformers.FalconConfig, {}),
    "granite_hybrid": (
        transformers.GraniteMoeHybridConfig,
        {**GATED, "num_local_experts": 0, "shared_intermediate_size": 48, "mamba_n_heads": 2, "mamba_d_head": 32,
         "layer_types": ["attention", "attention"]},
    ),
    "qwen3_moe": (
        transformers.Qwen3MoeConfig,
        {**GATED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    ),
    "mixtral": (transformers.MixtralConfig, {**GATED, "num_local_experts": 4}),
    "bloom": (transformers.BloomConfig, {"n_layer": 2, "n_head": 4}),
}  # fmt: skip


def family_model(kind):
    """Return a random model of a family."""
    make, sizes = FAMILIES[kind]
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(make(**(COMMON | sizes)))


def with_a_tower():
    """Return a random Gemma 3 that also sees."""
    sizes = {name: COMMON[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    text = COMMON | GATED | {"head_dim": 8}
    vision = sizes | {"intermediate_size": 48, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config)


def with_eyes(kind):
    """Return a random model that also sees, of a kind that Transformers does not list as a causal language model."""
    sizes = {name: COMMON[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    text = transformers.LlamaConfig(**COMMON, **GATED)
    sees = transformers.CLIPVisionConfig(**sizes, intermediate_size=48, image_size=28, patch_size=14)
    config = {"llava": transformers.LlavaConfig, "vipllava": transformers.VipLlavaConfig}[kind]
    torch.manual_seed(0)
    return transformers.AutoModelForImageTextToText.from_config(
        config(text_config=text, vision_config=sees, image_token_index=5)
    )


def family_folder(kind, folder, model=None):
    """Write a model of a family with a tokenizer, and return the folder."""
    model = model or family_model(kind)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
