"""A model's files hold exactly the weights that it computes with: otherwise one line, and no weight is drawn at random."""

import json
import shutil

import pytest
import torch
import transformers
from conftest import CHAT_ROWS
from families import with_eyes
from fits import adam, train
from safetensors.torch import load_file, save_file

from graspl import LoRALitModule
from graspl.adapters import load_base_model
from graspl.errors import GrasplError

DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def changed(folder_of, tmp_path):
    """Return a Llama folder whose weights a function has changed."""

    def change(edit):
        base = shutil.copytree(folder_of("llama"), tmp_path / "model")
        weights = load_file(base / "model.safetensors")
        edit(weights)
        save_file(weights, base / "model.safetensors", {"format": "pt"})
        return str(base)

    return change


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda weights: weights.pop(DOWN), f"lack {DOWN}, which LlamaForCausalLM computes with"),
        (lambda weights: weights.pop("lm_head.weight"), "lack lm_head.weight, which"),
        (
            lambda weights: weights.update({DOWN.replace("weight", "bias"): torch.ones(32)}),
            f"holds {DOWN.replace('weight', 'bias')}, which LlamaForCausalLM does not compute with",
        ),
        (
            lambda weights: weights.update({"model.layers.1.self_attn.q_norm.weight": torch.ones(8)}),
            "holds model.layers.1.self_attn.q_norm.weight",
        ),
        (
            lambda weights: weights.update({DOWN: torch.ones(32, 47)}),
            f"{DOWN} is \\(32, 47\\) in the files and \\(32, 48\\) by config.json",
        ),
    ],
)
def test_weights_that_are_missing_or_left_over(edit, says, changed, caplog):
    with pytest.raises(GrasplError, match=f"^base_model: .*{says}") as told:
        load_base_model(changed(edit))
    assert "\n" not in str(told.value)
    assert "LOAD REPORT" not in caplog.text


def test_weights_beside_the_language_model_are_named_once(changed, caplog):
    base = changed(lambda weights: weights.update({"v_head.summary.weight": torch.ones(1, 32)}))
    load_base_model(base)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("graspl")]
    assert said == ["base_model: LlamaForCausalLM does not use 1 weights of its files (v_head.summary)"]


def test_weights_of_a_model_without_a_head(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    transformers.LlamaModel(config).save_pretrained(tmp_path)
    with pytest.raises(GrasplError, match=r"lack lm_head\.weight"):
        load_base_model(str(tmp_path))


def test_weights_that_are_not_numbers(changed, write_rows, tmp_path):
    base = changed(lambda weights: weights[DOWN].fill_(float("nan")))
    with pytest.raises(GrasplError, match="predictions that are no numbers"):
        train(LoRALitModule(base, optimizer=adam), rows=write_rows(CHAT_ROWS), folder=tmp_path / "run")


def test_models_that_see_and_are_no_causal_language_models(tmp_path):
    with_eyes("llava").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llava"
    with pytest.raises(GrasplError, match="its kind has no causal language model in Transformers"):
        load_base_model(str(tmp_path))
