"""A GGUF file as base model: what Transformers itself makes of it, and a run from it to its export."""

import json

import pytest
import torch
from conftest import TEMPLATE
from gguf_files import write_gguf
from peft import PeftModel
from transformers import AutoModelForCausalLM

from graspl.adapters import load_base_model, load_tokenizer
from graspl.errors import GrasplError

IDS = torch.randint(6, 200, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Return a GGUF file and the model that it holds."""
    pytest.importorskip("gguf", reason="needs gguf: pip install --group real")
    file = tmp_path_factory.mktemp("packed") / "tiny.gguf"
    return file, write_gguf(file)


@torch.no_grad()
def test_the_model_is_the_one_that_the_file_holds(packed, capfd):
    file, held = packed
    assert torch.equal(load_base_model(str(file)).eval()(input_ids=IDS).logits, held(input_ids=IDS).logits)
    tokenizer = load_tokenizer(str(file))
    assert "%|" not in capfd.readouterr().err  # Transformers' bar
    assert tokenizer.chat_template == TEMPLATE
    text = "how do i open the file <end>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_what_cannot_be_used_is_one_line(packed, tmp_path, monkeypatch):
    file, _ = packed
    with pytest.raises(GrasplError, match="is a GGUF file"):
        load_base_model(str(file), load_in_4bit=True)
    with pytest.raises(GrasplError, match="there is no file gone"):
        load_tokenizer("gone.gguf")
    with monkeypatch.context() as patch:
        patch.setattr("graspl.adapters.base_model.find_spec", lambda name: None)
        with pytest.raises(GrasplError, match="pip install 'graspl"):
            load_tokenizer(str(file))
    half = tmp_path / "half.gguf"
    half.write_bytes(file.read_bytes()[:5000])
    for load in (load_tokenizer, load_base_model):
        with pytest.raises(GrasplError, match="base_model"):
            load(str(half))


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_a_fit_on_it_is_recorded_exported_and_merged(packed, graspl, chat_options, tmp_path):
    file, held = packed
    code, _, err = graspl("fit", *chat_options(**{"model.base_model": file, "data.max_length": 512}))
    assert code == 0, err
    sources = json.loads((tmp_path / "run" / "lineage.json").read_text())["results"]["adapter"]["made_from"]
    assert list(sources["base model"][str(file)]) == [file.name]
    code, _, err = graspl("export", "run", "--out", "merged", "--merge")
    assert code == 0, err
    adapted = PeftModel.from_pretrained(held, tmp_path / "run" / "adapter").eval()
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained("merged").eval()(input_ids=IDS).logits
        torch.testing.assert_close(merged, adapted(input_ids=IDS).logits, atol=1e-5, rtol=0)
    assert graspl("verify", "run", "merged")[0] == 0
