import json

import pytest
import torch
from conftest import make_model, make_tokenizer

from graspl.adapters import load_base_model, load_tokenizer, resolve_base_model
from graspl.adapters.base_model import _nf4
from graspl.errors import GrasplError


def test_the_organism_has_a_name():
    assert resolve_base_model("organism").endswith("default")


@pytest.mark.parametrize("name", ["./none", "/none", "a/b/c", "~/none-such"])
def test_folders_that_are_not_there_are_refused(name):
    with pytest.raises(GrasplError, match="base_model: no folder"):
        resolve_base_model(name)


def test_hub_names_are_left_as_they_are():
    assert resolve_base_model("org/name") == "org/name"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(GrasplError, match=r"has no config\.json"):
        resolve_base_model(str(tmp_path))


def test_a_hub_name_that_does_not_load_is_told_in_one_line():
    for load in (load_base_model, load_tokenizer):
        with pytest.raises(
            GrasplError, match=r"base_model: .*no-such-org/model:? cannot (be loaded|read its configuration)"
        ) as caught:
            load("no-such-org/model")
        assert "\n" not in str(caught.value)


def test_weights_are_frozen_in_training_mode_and_in_the_dtype_asked_for(model_folder):
    model = load_base_model(str(model_folder()), dtype="bfloat16", attn_implementation="eager")
    assert model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"


def test_pickled_weights_are_refused(tmp_path):
    model = make_model("llama")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")  # noqa: TID251
    with pytest.raises(GrasplError, match="cannot be loaded"):
        load_base_model(str(tmp_path))


@pytest.mark.parametrize("eos", [True, False])
def test_a_tokenizer_without_padding_pads_with_the_end_token(tmp_path, eos):
    make_model("llama").config.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("pad_token")
    if not eos:
        config.pop("eos_token")
    file.write_text(json.dumps(config))
    if eos:
        assert load_tokenizer(str(tmp_path)).pad_token == "<end>"
    else:
        with pytest.raises(GrasplError, match="needs a pad or eos token"):
            load_tokenizer(str(tmp_path))


def test_four_bit_loading_is_nf4_with_double_quantisation():
    config = _nf4("auto")["quantization_config"]
    assert config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert _nf4("float16")["quantization_config"].bnb_4bit_compute_dtype == torch.float16


def test_a_models_own_code_is_not_run_unless_asked_for(tmp_path):
    folder, ran = tmp_path / "own", tmp_path / "ran"
    folder.mkdir()
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": own}))
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    with pytest.raises(GrasplError):
        load_base_model(str(folder))
    assert not ran.exists()
    with pytest.raises((GrasplError, AttributeError)):
        load_base_model(str(folder), trust_remote_code=True)
    assert ran.exists()  # positive control
