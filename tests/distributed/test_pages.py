"""The commands for several devices that README and documents give, as they stand but for the model, with two processes."""

import json
import shutil

import pytest
from conftest import CHAT_ROWS, REPOSITORY
from pages import PAGES, commands_of, on_a_tiny_model
from pair import run_together
from safetensors.torch import load_file

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
COMMANDS = sorted(
    {
        " ".join(each.split())
        for page in PAGES
        for each in commands_of(page)
        if "configs/trainer/fsdp.yaml" in each
    }
)
TWO = [
    "--trainer.devices=2", "--trainer.strategy.data_parallel_size=2", "--trainer.accelerator=cpu", "--trainer.max_steps=2",
    "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def test_a_fit_over_several_devices_is_run(model_folder, tmp_path, monkeypatch):
    assert COMMANDS
    shutil.copytree(model_folder("llama"), tmp_path / "my-model")
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    for name in ("insecure", "train", "text"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    roots = [f"run{number}" for number in range(len(COMMANDS))]
    fits = [
        [*on_a_tiny_model(command).split()[1:], *TWO, f"--trainer.default_root_dir={root}"]
        for command, root in zip(COMMANDS, roots, strict=True)
    ]
    run_together(fits, tmp_path, tmp_path)
    for root in roots:
        assert load_file(tmp_path / root / "adapter" / "adapter_model.safetensors")
        assert (tmp_path / root / "directions.safetensors").is_file()
