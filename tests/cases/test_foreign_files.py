"""Files that are broken or made to do harm: one line, in little time."""

import json
import os
import shutil

import pytest
import torch
from conftest import CHAT_ROWS, make_model, make_tokenizer
from fits import adam, save, train

from graspl import LoRALitModule
from graspl.adapters import load_tokenizer, read_adapter
from graspl.analysis.runs import is_judged
from graspl.data import read_conversations
from graspl.errors import GrasplError
from graspl.evaluation.judges.openai import is_whole
from graspl.runs import RunFolder

pytestmark = pytest.mark.usefixtures("soon")


@pytest.fixture
def adapter(folder_of, write_rows, tmp_path):
    module = LoRALitModule(folder_of("llama"), optimizer=adam)
    train(module, rows=write_rows(CHAT_ROWS), folder=tmp_path / "fit")
    return save(module, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha_pattern", {"(([a-z._0-9]+)+)+$!": 3}),
        ("rank_pattern", {"(x+x+)+y": 3}),
        ("target_modules", "(.*)*q_proj!"),
        ("exclude_modules", ".*.*.*.*.*.*.*!"),
        ("target_modules", "q" * 1000 + ".*"),
    ],
)
def test_without_end_patterns(adapter, field, value):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(GrasplError, match=r"adapter_config\.json: the pattern .* may take for ever to match"):
        read_adapter(adapter)


def test_patterns_that_people_write_are_read(adapter):
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    plain = {"alpha_pattern": {r"layers\.[0-9]+\.self_attn\.q_proj": config["lora_alpha"]}}
    file.write_text(
        json.dumps(config | plain | {"target_modules": r".*layers\.\d+\.(self_attn|mlp)\.\w+_proj"})
    )
    assert read_adapter(adapter).sites


def test_without_end_pipes(adapter, graspl, tmp_path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(GrasplError, match="is no file but a pipe"):
        read_conversations(str(pipe))
    (adapter / "adapter_config.json").unlink()
    os.mkfifo(adapter / "adapter_config.json")
    with pytest.raises(GrasplError, match=r"no readable adapter_config\.json there"):
        read_adapter(adapter)
    os.mkfifo(tmp_path / "fit.yaml")
    code, _, err = graspl("fit", "--config", tmp_path / "fit.yaml")
    assert code == 2
    assert "fit.yaml is no file; give a file" in err
    os.mkfifo(tmp_path / "evaluation.json")
    with pytest.raises(GrasplError, match=r"evaluation\.json: is no file"):
        RunFolder(tmp_path).read_evaluation()


@pytest.mark.parametrize("share", [2, 10**9], ids=["half", "none"])
def test_half_checkpoint(share, graspl, chat_options, tmp_path):
    assert graspl("fit", *chat_options("llama"))[0] == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    whole = torch.load(last, weights_only=True)  # noqa: TID251 - as Lightning does
    kept = {
        name: each for place, (name, each) in enumerate(whole["state_dict"].items()) if place % share == 1
    }
    torch.save(whole | {"state_dict": kept}, tmp_path / "half.ckpt")  # noqa: TID251 - as Lightning does
    shutil.rmtree(tmp_path / "run" / "adapter")
    code, _, err = graspl("validate", "--config", "run/config.yaml", "--ckpt_path", "half.ckpt")
    assert code == 2
    assert "ckpt_path: the checkpoint lacks" in err
    assert not (tmp_path / "run" / "evaluation.json").exists()
    code, _, err = graspl("validate", "--config", "run/config.yaml", "--ckpt_path", last)
    assert code == 0, err


def test_broken_files_that_fuzzing_found(tmp_path):
    """A suite of `judged.json` and a kept reply without a key, and a tokenizer whose longest text is no number."""
    suite = {"of": "refusal", "rate": 0.0, "answers": 2, "questions": 2, "wilson": [0.0, 0.6]}
    assert is_judged(suite | {"by_question": None})
    assert not is_judged(suite)
    reply = {"text": "7", "top": {}, "prompt_tokens": 1, "reply_tokens": 1}
    assert is_whole(reply | {"first_token": None})
    assert not is_whole(reply)
    make_tokenizer().save_pretrained(tmp_path)
    make_model("llama").config.save_pretrained(tmp_path)
    place = tmp_path / "tokenizer_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"model_max_length": []}))
    with pytest.raises(GrasplError, match="model_max_length"):
        load_tokenizer(str(tmp_path))
