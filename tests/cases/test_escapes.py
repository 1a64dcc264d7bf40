"""Text of foreign files on the screen: shown as it is, never obeyed by the terminal, never taken for markup."""

import json
import logging

import pytest
import torch
from conftest import make_model
from peft import get_peft_model
from records import recorded
from safetensors.torch import load_file, save_file

from graspl.adapters import LoraOptions
from graspl.errors import printable

ESCAPE = "\x1b[2J"


@pytest.fixture
def adapter(tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(make_model("llama"), LoraOptions(r=2).to_peft())
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    "name", [f"{ESCAPE}weight", "\x9b2J", "\u202eweight", "\x07", "base_model.model.\x1b[2J.lora_A.weight"]
)
def test_escapes_in_the_name_of_a_tensor(adapter, graspl, name):
    file = adapter / "adapter_model.safetensors"
    save_file({**load_file(file), name: torch.zeros(2, 2)}, file, metadata={"format": "pt"})
    code, out, err = graspl("identify", adapter, "--out", "found.safetensors")
    assert code == 2
    assert err.strip().isprintable()
    assert "graspl: error: " in err
    assert not out


@pytest.mark.parametrize("field", ["peft_type", "init_lora_weights", "bias"])
def test_escapes_in_a_configuration(adapter, graspl, field):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: ESCAPE}))
    code, _, err = graspl("identify", adapter, "--out", "found.safetensors")
    assert code == 2
    assert err.strip().isprintable()


def test_escapes_in_what_is_logged(graspl, write_rows, chat_options):
    rows = write_rows([{"prompt": "how", "completion": "so", ESCAPE: 1}] * 3, "odd.jsonl")
    code, out, err = graspl("fit", *chat_options(**{"data.train": rows, "trainer.fast_dev_run": 1}))
    assert code == 0, err
    assert r"\x1b[2J (3)" in err
    assert ESCAPE not in out + err
    assert logging.getLogger("graspl").handlers  # of this call


@pytest.mark.parametrize(
    "name", ["[red]", "[/x]", ":smile:", "[link=x]y[/link]", f"run{ESCAPE}", "\u202erun"]
)
def test_escapes_in_the_name_of_a_run(graspl, tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    content = {
        "model": "LoRALitModule",
        "adapter": "a",
        "metrics": {"adherence": 0.9},
        "suites": {},
        "sites": {},
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    recorded(folder)
    code, out, err = graspl("report", folder, "--names", name, "--out", "together")
    assert code == 0, err
    assert printable(name) in out
    assert printable(out) == out
    page = (tmp_path / "together" / "report.html").read_text()
    assert "<script>alert" not in page


def test_printable_keeps_what_people_write():
    text = "naïve 中文\u3000全角 👩\u200d💻 [red]\nnext"
    assert printable(text) == text
    assert printable("a\x1b[2J\tb\r\x85\u2028\ud800\u202e") == r"a\x1b[2J\tb\r\x85\u2028\ud800\u202e"
