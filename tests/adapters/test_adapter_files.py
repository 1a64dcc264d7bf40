import json

import peft
import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file, save_file

from graspl.adapters import lora_sites, read_adapter
from graspl.errors import GrasplError


def adapted(kind="qwen2", **options):
    options = {"r": 4, "target_modules": "all-linear"} | options
    model = peft.get_peft_model(make_model(kind), peft.LoraConfig(task_type="CAUSAL_LM", **options))
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p)
    return model


@pytest.mark.parametrize("kind", ["qwen2", "gemma", "llama"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "lora_alpha": 3},
        {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}, "alpha_pattern": {"q_proj": 5}},
    ],
    ids=["plain", "rslora", "patterns"],
)
def test_sites_read_from_disk_equal_what_merging_changes(tmp_path, kind, options):
    model = adapted(kind, **options)
    model.save_pretrained(tmp_path)
    before = {name: p.clone() for name, p in make_model(kind).named_parameters()}
    live = {site.name: site for site in lora_sites(model)}
    sites = read_adapter(tmp_path).sites
    assert {site.name for site in sites} == set(live)
    merged = dict(model.merge_and_unload().named_parameters())
    for site in sites:
        assert site.scaling == pytest.approx(live[site.name].scaling)
        change = merged[site.name + ".weight"] - before[site.name + ".weight"]
        torch.testing.assert_close(site.scaling * site.B @ site.A, change, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"lora_bias": True, "init_lora_weights": True}, "lora_bias"),
    ],
)
def test_adapters_whose_change_is_not_b_times_a_are_refused(tmp_path, options, message):
    model = peft.get_peft_model(
        make_model("qwen2"),
        peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **options),
    )
    model.save_pretrained(tmp_path)
    with pytest.raises(GrasplError, match=message):
        read_adapter(tmp_path)


@pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")
@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_live_adapters_of_those_kinds_are_refused(options):
    with pytest.raises(GrasplError, match=r"lora\."):
        lora_sites(adapted(**options))


def test_lora_on_an_embedding_is_refused_with_its_name():
    with pytest.raises(GrasplError, match="embed_tokens: LoRA on Embedding"):
        lora_sites(adapted(target_modules=["embed_tokens", "q_proj"]))


def test_another_kind_of_adapter_is_refused(tmp_path):
    peft.get_peft_model(
        make_model("qwen2"),
        peft.IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[]),
    ).save_pretrained(tmp_path)
    with pytest.raises(GrasplError, match="IA3"):
        read_adapter(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path):
    adapted().save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(GrasplError, match="safetensors"):
        read_adapter(tmp_path)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(GrasplError, match=r"adapter_config\.json"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(GrasplError, match="not JSON"):
        read_adapter(tmp_path)


def test_a_cut_off_weights_file_is_named(tmp_path):
    adapted().save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(GrasplError, match=r"adapter_model\.safetensors"):
        read_adapter(tmp_path)


def test_a_factor_without_its_partner_is_named(tmp_path):
    adapted(target_modules=["q_proj"]).save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    tensors = load_file(weights)
    del tensors["base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"]
    save_file(tensors, weights)
    with pytest.raises(GrasplError, match=r"layers\.1\.self_attn\.q_proj"):
        read_adapter(tmp_path)


def test_the_hash_is_of_the_weights_file(tmp_path):
    import hashlib

    adapted().save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    assert read_adapter(tmp_path).sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
