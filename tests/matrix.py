"""What graspl makes of each family of causal language models: a cell is right by another way of computing it, or refused."""

import json
import logging
import re
import sys
import tempfile
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import peft
import torch
import transformers
from conftest import CHAT_ROWS, REPOSITORY
from families import COMMON, family_folder, with_a_tower, with_eyes
from fits import adam, batch_of, save, train
from lightning import Trainer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from graspl import GRASPLitModule, LoRALitModule
from graspl.adapters import LoraOptions
from graspl.constraints import ResidualConstraint
from graspl.data.turns import end_of_answer
from graspl.directions import LayerSingular
from graspl.errors import GrasplError
from graspl.evaluation import Sampling, TransformersGenerator
from graspl.methods import ThrowAwayFit
from graspl.planning import Layout, footprint, model_shape
from graspl.runs import write_json_atomic

CELLS = ("plan", "naive", "grasp", "packed", "validate", "generate", "merge")
# By family, the cells that are refused; all others are right
REFUSED = {
    "apertus": (), "arcee": (), "biogpt": ("packed",), "bloom": ("packed",), "codegen": (), "cohere": (),
    "cohere2": (), "ctrl": ("grasp",), "diffllama": (), "ernie4_5": (), "exaone4": (), "falcon": ("packed",),
    "gemma": (), "gemma2": (), "gemma3_text": (), "glm": (), "glm4": (), "gpt2": (), "gpt_bigcode": (), "gpt_neox": (),
    "gptj": (), "granite": (), "helium": (), "lfm2": (), "llama": (), "ministral": (), "mistral": (),
    "mpt": ("packed",), "nemotron": (), "olmo": (), "olmo2": (), "olmo3": (), "opt": ("packed",), "persimmon": (),
    "phi": (), "phi3": (), "qwen2": (), "qwen3": (), "seed_oss": (), "smollm3": (), "stablelm": (), "starcoder2": (),
    "vaultgemma": (), "xglm": ("packed",), "gemma3": (),
    "gpt_oss": ("packed",), "granitemoe": (), "bart": CELLS[1:], "laguna": CELLS[1:],
    "gpt_neo": ("packed",), "cwm": (), "deepseek_v3": (), "glm4_moe_lite": (), "minicpm3": (), "lfm2_moe": ("packed",),
    "bamba": ("packed",), "granitemoehybrid": ("grasp", "packed"), "gemma3n_text": ("grasp",), "gemma4_text": ("grasp",),
    "bert": CELLS, "llava": CELLS, "vipllava": CELLS, "mixtral": CELLS, "phimoe": CELLS[1:], "qwen3_moe": CELLS,
}  # fmt: skip
# Models that also see, and what keeps the adapter within the language model
SEEING = {
    "gemma3": with_a_tower,
    "llava": partial(with_eyes, "llava"),
    "vipllava": partial(with_eyes, "vipllava"),
}
_LATENT = {"target_modules": ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"]}
LORA = {
    "gemma3": {"exclude_modules": ".*(vision_tower|multi_modal_projector).*"},
    "deepseek_v3": _LATENT,
    "glm4_moe_lite": _LATENT,
}
# Small sizes by the names that configurations give them
SIZES = {
    "head_dim": 8, "intermediate_size": 48, "ffn_dim": 48, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "n_layer": 2, "n_head": 4, "n_embd": 32, "d_model": 32, "n_layers": 2,
    "n_heads": 4, "rotary_dim": 4, "word_embed_proj_dim": 32, "decoder_layers": 2, "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48, "encoder_layers": 2, "embed_dim": 32,
}  # fmt: skip

# What a family needs beside them, or in their place
_MAMBA = {"mamba_n_heads": 2, "mamba_d_head": 32, "mamba_d_state": 8}
_PER_LAYER = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 100}
OWN_SIZES = {
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4, "window_size": 8},
    "cwm": {"bos_token_id": 0},
    "deepseek_v3": {"num_key_value_heads": 4},
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "minicpm3": {"num_key_value_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "granitemoehybrid": {
        **_MAMBA, "layer_types": ["mamba", "attention"], "num_local_experts": 0, "shared_intermediate_size": 48,
    },
    "gemma3n_text": {
        **_PER_LAYER, "num_kv_shared_layers": 0, "laurel_rank": 4, "altup_num_inputs": 2, "intermediate_size": [48, 48],
        "layer_types": ["sliding_attention", "full_attention"], "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": {**_PER_LAYER, "global_head_dim": 8},
}  # fmt: skip


def config_of(kind):
    """Return a small configuration of a family, by its `model_type`."""
    make = next(each for each in MODEL_FOR_CAUSAL_LM_MAPPING if each.model_type == kind)
    fields = set(getattr(make, "__dataclass_fields__", {}))
    small = {name: size for name, size in SIZES.items() if name in fields}
    return make(**(COMMON | small | OWN_SIZES.get(kind, {})))


def model_of(kind):
    """Return a small random model of a family."""
    if kind in SEEING:
        return SEEING[kind]()
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config_of(kind))


def outcomes(base, rows, folder):
    """Return what each cell came to: `right`, or the one line that refuses it."""
    found = {}
    for cell in CELLS:
        torch.manual_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                globals()[f"_{cell}"](base, rows, folder / cell)
            found[cell] = "right"
        except GrasplError as error:
            found[cell] = str(error)
    return found


def _lora(base):
    """Return the adapter's options for a model's family."""
    kind = json.loads((Path(base) / "config.json").read_text())["model_type"]
    return LoraOptions(**LORA.get(kind, {}))


def _fitted(base, rows, folder, *, packing=False):
    module = LoRALitModule(base, lora=_lora(base), optimizer=adam)
    trainer = train(module, rows=rows, folder=folder, data={"packing": packing, "batch_size": 4})
    return module, trainer


def _plan(base, rows, folder):
    """The parameters that `graspl plan` counts are those of the model and of the adapter that PEFT makes."""
    shape = model_shape(base, _lora(base))
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    assert shape.frozen_numbers == sum(each.numel() for each in model.parameters())
    ids = torch.zeros(1, 2, dtype=torch.long)
    assert shape.hidden == model.base_model(input_ids=ids, use_cache=False)[0].shape[-1]
    adapted = peft.get_peft_model(model, _lora(base).to_peft())
    assert shape.adapter_numbers == sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    footprint(shape, Layout("single"), directions=6)


def _naive(base, rows, folder):
    """The loss of padded rows is that of each row by itself, by Transformers' own call."""
    module, trainer = _fitted(base, rows, folder)
    module.model.eval()
    batch = batch_of(trainer)
    with torch.no_grad():
        total, tokens = module.answer_loss(batch)
        by_hand, count = 0.0, 0
        for ids, mask, labels in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        ):
            n = int(mask.sum())
            logits = module.model(
                input_ids=ids[None, :n], attention_mask=mask[None, :n], use_cache=False
            ).logits[0]
            targets = labels[1:n]
            by_hand += torch.nn.functional.cross_entropy(logits[:-1].float(), targets, reduction="sum")
            count += int((targets != -100).sum())
    assert int(tokens) == count
    assert abs(float(total) - float(by_hand)) < 1e-5 * count, (float(total), float(by_hand))
    assert sum(float(site.B.abs().sum()) for site in module.sites) > 0


def _packed(base, rows, folder):
    """Packed rows have the loss that they have padded."""
    losses = []
    for packing in (False, True):
        module, trainer = _fitted(base, rows, folder / str(packing), packing=packing)
        module.model.eval()
        with torch.no_grad():
            for site in module.sites:
                site.B.zero_()
            sums = [module.answer_loss(batch) for batch in trainer.datamodule.train_dataloader()]
        losses.append(sum(float(total) for total, _ in sums) / sum(int(tokens) for _, tokens in sums))
    assert abs(losses[0] - losses[1]) < 1e-5, losses


def _grasp(base, rows, folder):
    """Of every matrix that PEFT merges, what adds to the stream does not write along the directions."""
    module = GRASPLitModule(
        base_model=base, constraints=[ResidualConstraint(k=2)], directions=ThrowAwayFit(LayerSingular(k=2), steps=2),
        lora=_lora(base), optimizer=adam,
    )  # fmt: skip
    trainer = train(module, rows=rows, folder=folder)
    batch = batch_of(trainer)
    changes = merged_changes(save(module, folder / "adapter"), base)
    assert changes
    modules = dict(module.model.get_base_model().named_modules())
    [hidden] = {each.D.shape[0] for each in module.directions_in_use.layers.values()}
    for name, change in changes.items():
        if change.shape[0] != hidden:
            continue
        numbered = re.match(r"(.*?\.\d+)\.", name)  # The first number in a name is the layer's
        assert numbered, f"{name} is in no layer"
        layer = numbered[1]
        assert layer in module.directions_in_use.layers, f"nothing is held in {layer}"
        D = module.directions_in_use.layers[layer].D[:, :2]
        # Several directions: one alone may come through a trained matrix by chance
        pushes = torch.cat([D, torch.nn.functional.normalize(torch.randn(hidden, 4), dim=0).to(D)], dim=1)
        if all(comes_through(module, batch, modules[layer], modules[name], push) for push in pushes.mT):
            leak = float((D.mT @ change).norm() / change.norm())
            assert leak < 1e-3, (name, leak)


def merged_changes(saved, base):
    """Return what PEFT's merge of a saved adapter adds to each weight, (out, in), by the module's name."""
    plain, other = (transformers.AutoModelForCausalLM.from_pretrained(base) for _ in range(2))
    before = dict(plain.named_parameters())
    merged = dict(peft.PeftModel.from_pretrained(other, saved).merge_and_unload().named_parameters())
    found = {}
    for name, each in merged.items():
        change = each.detach() - before[name]
        if name.endswith(".weight") and change.ndim == 2 and change.norm() > 0:
            transposed = type(plain.get_submodule(name.removesuffix(".weight"))).__name__ == "Conv1D"
            found[name.removesuffix(".weight")] = change.mT if transposed else change
    return found


@torch.no_grad()
def comes_through(module, batch, layer, pushed, direction):
    """Whether a push of a module's output along a direction comes out of its layer along that direction."""
    streams = []

    def keep(_m, _i, out):
        streams.append(out[0] if isinstance(out, tuple | list) else out)

    def push(_m, _i, out):
        return out + 1e-2 * direction.to(out)

    handles = [layer.register_forward_hook(keep)]
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    training = module.model.training
    module.model.eval()
    try:
        module.model(**inputs, use_cache=False)
        handles.append(pushed.register_forward_hook(push))
        module.model(**inputs, use_cache=False)
    finally:
        module.model.train(training)
        for each in handles:
            each.remove()
    moved = (streams[1] - streams[0])[batch["attention_mask"].bool()]
    along = (moved @ direction).mean() / moved.norm(dim=-1).mean().clamp_min(1e-12)
    return float(along) > 0.5


def _validate(base, rows, folder):
    """An adapter that was saved is measured as PEFT computes it, and the base model as Transformers does."""
    module, trainer = _fitted(base, rows, folder)
    saved = save(module, folder / "adapter")
    again = LoRALitModule(base, adapter=str(saved))
    with nullcontext():
        tester = Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
        )
        [scores] = tester.validate(again, trainer.datamodule, verbose=False)
    model = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), saved
    ).eval()
    total = {"loss": 0.0, "base_loss": 0.0}
    tokens = 0
    for row in trainer.datamodule._suites["task"]:
        ids, labels = torch.tensor([row.input_ids]), torch.tensor(row.labels)
        tokens += int((labels[1:] != -100).sum())
        with torch.no_grad():
            for name, within in (("loss", nullcontext()), ("base_loss", model.disable_adapter())):
                with within:
                    logits = model(input_ids=ids, use_cache=False).logits[0]
                total[name] += float(
                    torch.nn.functional.cross_entropy(logits[:-1].float(), labels[1:], reduction="sum")
                )
    for name, value in total.items():
        assert abs(scores[f"val/task/{name}"] - value / tokens) < 1e-5, name


def _generate(base, rows, folder):
    """Greedy answers of several prompts at once are those of one token after the other, without a cache."""
    module, trainer = _fitted(base, rows, folder)
    model, tokenizer = module.model.eval(), trainer.datamodule.tokenizer
    prompts = ["user how do i open the file assistant", "user take assistant"]
    found = TransformersGenerator(model, tokenizer).write(
        prompts, Sampling(temperature=0.0, max_new_tokens=4)
    )
    stops = end_of_answer(tokenizer).stops(tokenizer)
    for prompt, [answer] in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        said = []
        for _ in range(4):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids + said]), use_cache=False).logits[0, -1]
            best = int(logits.argmax())
            if best in stops:
                break
            said.append(best)
        assert answer == tokenizer.decode(said), (answer, tokenizer.decode(said))


def _merge(base, rows, folder):
    """PEFT's merged model has the adapted model's logits."""
    module, trainer = _fitted(base, rows, folder)
    saved = save(module, folder / "adapter")
    batch = batch_of(trainer)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = module.model.eval()(**inputs, use_cache=False).logits
        whole = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), saved)
        found = whole.merge_and_unload().eval()(**inputs, use_cache=False).logits
    kept = batch["attention_mask"].bool()
    torch.testing.assert_close(found[kept], expected[kept], rtol=1e-5, atol=1e-5)


def main():
    """Write results/models.json."""
    sys.path.append(str(REPOSITORY / "benchmarks" / "real"))
    from record import record, this_machine

    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    table = {}
    for kind in REFUSED:
        with tempfile.TemporaryDirectory() as place:
            folder, rows = Path(place), Path(place) / "rows.jsonl"
            rows.write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
            found = outcomes(str(family_folder(kind, folder / "model", model_of(kind))), rows, folder)
        table[kind] = {
            "family": kind,
            **{cell: "right" if said == "right" else "refused" for cell, said in found.items()},
        }
        print(table[kind], flush=True)
    note = f"Transformers {transformers.__version__}, PEFT {peft.__version__}; every model is tiny and random"
    write_json_atomic(
        REPOSITORY / "results" / "models.json",
        record("python tests/matrix.py", this_machine(), [0], {"families": table}, note),
    )


if __name__ == "__main__":
    main()
