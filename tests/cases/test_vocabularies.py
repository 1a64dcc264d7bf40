"""Tokens that a model has no row for, and adapters that do not fit it: one line that names the field."""

import json
import shutil

import peft
import pytest
import torch
from conftest import CHAT_ROWS, make_tokenizer
from families import family_model
from fits import adam, save, train
from safetensors.torch import load_file, save_file

from graspl import LoRALitModule
from graspl.adapters import load_adapter, load_base_model, read_adapter
from graspl.errors import GrasplError


@pytest.fixture
def base(folder_of, tmp_path):
    return shutil.copytree(folder_of("llama"), tmp_path / "model")


def test_pad_beyond_the_embedding(base, write_rows, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<far>"})
    tokenizer.save_pretrained(base)
    with pytest.raises(
        GrasplError,
        match=r"^base_model: the tokenizer pads with '<far>', id \d+, and the embedding has \d+ rows",
    ):
        train(LoRALitModule(str(base), optimizer=adam), rows=write_rows(CHAT_ROWS), folder=tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_token_beyond_the_embedding(base, write_rows, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["faraway"])
    tokenizer.save_pretrained(base)
    rows = write_rows([*CHAT_ROWS, {"prompt": "take faraway", "completion": "yes"}] * 3)
    with pytest.raises(
        GrasplError, match=r"^base_model: the tokenizer gives 'faraway' the id \d+, and the embedding"
    ):
        train(LoRALitModule(str(base), optimizer=adam), rows=rows, folder=tmp_path / "run")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_with_a_resized_vocabulary(tmp_path):
    model = family_model("llama")
    model.resize_token_embeddings(model.config.vocab_size + 8)
    options = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**options))
    adapted.save_pretrained(tmp_path / "auto", save_embedding_layers=True)
    with pytest.raises(
        GrasplError,
        match=r"holds \d tensors that are no factors of linear layers, e\.g\. .*(lm_head|embed_tokens)",
    ):
        read_adapter(tmp_path / "auto")
    whole = peft.get_peft_model(model, peft.LoraConfig(modules_to_save=["embed_tokens"], **options))
    whole.save_pretrained(tmp_path / "whole")
    with pytest.raises(GrasplError, match=r"does not fit the base model \(.*size mismatch"):
        load_adapter(family_model("llama"), str(tmp_path / "whole"))


def test_half_an_adapter(base, write_rows, tmp_path):
    """Factors that the configuration names and the file lacks are no zeros."""
    module = LoRALitModule(str(base), optimizer=adam)
    train(module, rows=write_rows(CHAT_ROWS), folder=tmp_path / "run")
    folder = save(module, tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    save_file({name: each for name, each in load_file(path).items() if "layers.0" in name}, path)
    with pytest.raises(GrasplError, match=r"does not fit the base model \(Found missing adapter keys"):
        load_adapter(load_base_model(str(base)), str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 0},
        {"hidden_size": "wide"},
        {"hidden_size": -3},
        {"num_hidden_layers": None},
        {"vocab_size": 3},
    ],
    ids=str,
)
def test_a_broken_configuration_of_a_model(base, changes):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | changes))
    says = r"^base_model: (the model of .* cannot be loaded: .|.* in the files and .* by config\.json|.* cannot read its)"
    with pytest.raises(GrasplError, match=says):
        load_base_model(str(base))


def test_weights_that_are_cut_off(base):
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(GrasplError, match=r"^base_model: .*model\.safetensors: not readable as safetensors"):
        load_base_model(str(base))


def test_the_model_itself_loads(base):
    assert isinstance(load_base_model(str(base)).get_input_embeddings(), torch.nn.Embedding)
