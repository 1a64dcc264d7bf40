"""What writes to the residual stream, which layers there are, and which adapters are read: by structure, or refused."""

import json

import peft
import pytest
import torch
import transformers
from conftest import CHAT_ROWS
from families import COMMON, FAMILIES, family_folder, family_model, with_a_tower
from fits import adam, factors, save, train
from safetensors.torch import load_file, save_file

from graspl import GRASPLitModule, LoRALitModule
from graspl.adapters import (
    LoraOptions,
    adapter_off,
    decoder_layers,
    load_adapter,
    load_base_model,
    read_adapter,
)
from graspl.auditing import Limits, checks
from graspl.constraints import ResidualConstraint
from graspl.directions import LayerSingular
from graspl.errors import GrasplError
from graspl.methods import ThrowAwayFit


def grasp_fit(base, rows, folder, **options):
    torch.manual_seed(0)
    module = GRASPLitModule(
        base_model=base, constraints=[ResidualConstraint(k=2)], directions=ThrowAwayFit(LayerSingular(k=2), steps=2),
        optimizer=adam, **options,
    )  # fmt: skip
    train(module, rows=rows, folder=folder)
    return module


def leaks_of(module, base):
    """Return how much of each trained matrix's change lies along the layer's directions, without graspl's own lists.

    The change is that of the weights which PEFT merges; every matrix that puts out the hidden size is looked at where what
    it puts out is added to the stream, which the test says by hand.
    """
    before = {name: each.clone() for name, each in load_base_model(base).named_parameters()}
    merged = dict(module.model.merge_and_unload().named_parameters())
    found = {}
    for layer, directions in module.directions_in_use.layers.items():
        D = directions.D[:, :2]
        for name in (name for name in merged if name.startswith(f"{layer}.") and name.endswith(".weight")):
            change = merged[name].detach() - before[name]
            if change.ndim == 2 and change.norm() > 0:
                change = (
                    change.mT if "c_proj" in name or "c_fc" in name or "c_attn" in name else change
                )  # Conv1D
                if change.shape[0] == D.shape[0]:
                    found[name.removesuffix(".weight")] = float((D.mT @ change).norm() / change.norm())
    return found


# What adds to the stream, by hand from the families' code
ADDS = {
    "llama": ("o_proj", "down_proj"), "gpt2": ("c_proj",), "falcon": ("dense", "dense_4h_to_h"), "opt": ("out_proj", "fc2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ADDS)
def test_decoder_layers_are_found_and_their_writers_held(kind, folder_of, write_rows, tmp_path):
    assert len(decoder_layers(load_base_model(folder_of(kind)))) == 2
    found = leaks_of(grasp_fit(folder_of(kind), write_rows(CHAT_ROWS), tmp_path), folder_of(kind))
    adding = {name: leak for name, leak in found.items() if name.rpartition(".")[2] in ADDS[kind]}
    assert len(adding) == 2 * (2 if kind == "gpt2" else len(ADDS[kind]))
    assert max(adding.values()) < 1e-4


def test_writer_names(folder_of, write_rows, tmp_path):
    """The shared MLP of Granite's hybrids writes under a name of its own: refused, and without it the rest is held."""
    rows = write_rows(CHAT_ROWS)
    with pytest.raises(
        GrasplError,
        match=r"shared_mlp\.output_linear writes to the residual stream.*exclude_modules: '(.*)'$",
    ) as error:
        grasp_fit(folder_of("granite_hybrid"), rows, tmp_path / "first")
    advice = str(error.value).rpartition("exclude_modules: '")[2].removesuffix("'")
    module = grasp_fit(
        folder_of("granite_hybrid"), rows, tmp_path / "second", lora=LoraOptions(exclude_modules=advice)
    )
    found = leaks_of(module, folder_of("granite_hybrid"))
    assert not any("output_linear" in name for name in found)
    assert max(leak for name, leak in found.items() if "o_proj" in name) < 1e-4
    # A naive fit holds nothing and needs no names
    naive = LoRALitModule(folder_of("granite_hybrid"), optimizer=adam)
    train(naive, rows=rows, folder=tmp_path / "naive")
    assert factors(naive).abs().sum() > 0


def test_writer_names_outside_the_layers(write_rows, tmp_path):
    """OPT's projection into the stream lies in no layer: refused, and without it the rest is held."""
    torch.manual_seed(0)
    make, sizes = FAMILIES["opt"]
    config = make(**(COMMON | sizes | {"word_embed_proj_dim": 16}))
    base = str(
        family_folder("opt", tmp_path / "model", transformers.AutoModelForCausalLM.from_config(config))
    )
    rows = write_rows(CHAT_ROWS)
    with pytest.raises(GrasplError, match=r"project_in writes to the residual stream") as error:
        grasp_fit(base, rows, tmp_path / "first")
    advice = str(error.value).rpartition("exclude_modules: '")[2].removesuffix("'")
    module = grasp_fit(base, rows, tmp_path / "second", lora=LoraOptions(exclude_modules=advice))
    assert not any("project_in" in site.name for site in module.sites)


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
@pytest.mark.parametrize("fit", ["naive", "grasp"])
def test_moe_grasp(kind, fit, folder_of, write_rows, tmp_path):
    """Experts are refused before the first step, and following the advice trains the rest."""
    rows = write_rows(CHAT_ROWS)
    lora = LoraOptions()

    def run(folder, lora):
        if fit == "grasp":
            return grasp_fit(folder_of(kind), rows, folder, lora=lora)
        module = LoRALitModule(folder_of(kind), lora=lora, optimizer=adam)
        train(module, rows=rows, folder=folder)
        return module

    with pytest.raises(
        GrasplError, match=r"^lora\.target_modules: .*stacked in one parameter; name others, e\.g\. \[k_proj"
    ) as error:
        run(tmp_path / "first", lora)
    named = str(error.value).partition("[")[2].removesuffix("]").split(", ")
    module = run(tmp_path / "second", LoraOptions(target_modules=named))
    assert {site.name.rpartition(".")[2] for site in module.sites} == set(named)


def test_conv1d(folder_of, write_rows, tmp_path):
    """A GPT-2's own adapter is read back, and changes the logits as it did."""
    base = folder_of("gpt2")
    module = LoRALitModule(base, optimizer=adam)
    trainer = train(module, rows=write_rows(CHAT_ROWS), folder=tmp_path)
    save(module, tmp_path / "adapter")
    again = LoRALitModule(base, adapter=str(tmp_path / "adapter"))
    again.configure_model()
    batch = next(iter(trainer.datamodule.train_dataloader()))
    module.model.eval()
    again.model.eval()
    torch.testing.assert_close(again(batch), module(batch))
    assert not torch.allclose(again(batch), again.base_forward(batch))


def test_vision_tower(write_rows, tmp_path):
    base = str(family_folder("gemma3", tmp_path / "model", with_a_tower()))
    rows = write_rows(CHAT_ROWS)
    with pytest.raises(
        GrasplError, match=r"no part of the language model; set lora\.exclude_modules: "
    ) as error:
        train(LoRALitModule(base), rows=rows, folder=tmp_path / "first")
    advice = str(error.value).rpartition("exclude_modules: '")[2].removesuffix("'")
    module = LoRALitModule(base, lora=LoraOptions(exclude_modules=advice), optimizer=adam)
    train(module, rows=rows, folder=tmp_path / "second")
    assert module.sites
    assert not any("vision" in site.name or "projector" in site.name for site in module.sites)


def saved(tmp_path, **options):
    """Write a PEFT adapter with everything in it changed, and return its folder."""
    given = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | options
    model = peft.get_peft_model(family_model("llama"), peft.LoraConfig(**given))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.5)
    model.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_modules_to_save(tmp_path):
    """With the adapter off the model is the base model, modules trained in full included; an audit is in doubt."""
    folder = saved(tmp_path, modules_to_save=["lm_head", "embed_tokens"])
    ids = torch.tensor([[7, 8, 9, 10]])
    model = load_adapter(family_model("llama"), str(folder)).eval()
    with torch.no_grad():
        expected = family_model("llama").eval()(ids).logits
        with model.disable_adapter():
            torch.testing.assert_close(model(ids).logits, expected)
        with adapter_off(model):
            torch.testing.assert_close(model(ids).logits, expected)
        assert not torch.allclose(model(ids).logits, expected)
    whole = read_adapter(folder).whole
    assert {name.rpartition(".")[2] for name in whole} == {"lm_head", "embed_tokens"}
    [check] = checks(Limits(), {}, {}, {}, whole)
    assert check.outcome == "doubtful"
    assert "lm_head" in check.name


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"kasa_config": peft.KasaConfig() if hasattr(peft, "KasaConfig") else None}, "kasa_config"),
        ({"bias": "lora_only"}, "bias"),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
    ],
)
def test_kasa(options, field, tmp_path):
    """Adapters whose change is not B A alone are refused by the field that says so."""
    try:
        folder = saved(tmp_path, **options)
    except (TypeError, ValueError) as error:
        pytest.skip(f"this PEFT does not make it: {error}")
    if not json.loads((folder / "adapter_config.json").read_text()).get(field):
        pytest.skip("this PEFT does not have it")
    with pytest.raises(GrasplError, match=field):
        read_adapter(folder)


def test_kasa_of_a_later_peft_is_refused_by_an_unknown_field(tmp_path):
    folder = saved(tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_something_new": True}))
    with pytest.raises(GrasplError, match=r"'use_something_new' is set; only plain LoRA"):
        read_adapter(folder)


def test_kasa_tensors_that_nobody_knows_are_refused(tmp_path):
    folder = saved(tmp_path)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors)).replace("lora_A.weight", "lora_diag")
    save_file(tensors | {name: torch.ones(2)}, path)
    with pytest.raises(
        GrasplError, match=r"holds 1 tensors that are no factors of linear layers, e\.g\. .*lora_diag"
    ):
        read_adapter(folder)
