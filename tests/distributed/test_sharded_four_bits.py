"""Four-bit weights under DDP and FSDP2, two processes on a CPU; `make extras` runs this where bitsandbytes is."""

import json

import pytest
import torch
from conftest import CHAT_ROWS, make_model, make_tokenizer
from pair import DDP, FSDP2, run_together
from safetensors.torch import load_file

pytest.importorskip("bitsandbytes", reason="needs the qlora extra: make extras")
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_two_processes_give_the_fit_in_four_bits_of_one(tmp_path):
    """With a validation in the middle, after which nothing may be otherwise."""
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))

    def fit(folder, processes, *strategy):
        return [
            "fit", "--data=graspl.data.ChatDataModule", "--data.train=train.jsonl", f"--data.batch_size={4 // processes}",
            "--data.group_by_length=false", "--model=graspl.methods.LoRALitModule", "--model.base_model=model",
            "--model.lora.r=8", "--model.lora.lora_alpha=16",
            "--model.load_in_4bit=true", "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=1e-3",
            "--model.optimizer.eps=1e-6", "--trainer.accelerator=cpu", "--trainer.max_steps=4",
            "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}", *strategy,
        ]  # fmt: skip

    for name, fits, processes in (
        ("one", [fit("one", 1)], 1),
        ("two", [fit("fsdp2", 2, *FSDP2), fit("ddp", 2, *DDP)], 2),
    ):
        (tmp_path / f"logs-{name}").mkdir()
        run_together(fits, tmp_path, tmp_path / f"logs-{name}", processes=processes)
    one, *others = (
        load_file(tmp_path / folder / "adapter" / "adapter_model.safetensors")
        for folder in ("one", "fsdp2", "ddp")
    )
    for other in others:
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-5)
    assert max(float(tensor.abs().max()) for name, tensor in one.items() if "lora_B" in name) > 1e-3
