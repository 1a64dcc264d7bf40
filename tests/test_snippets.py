"""The Python of README and pages is run as it stands. Modules that a reader writes are used by tests/test_commands.py."""

import json
import runpy
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import CHAT_ROWS
from datasets import Dataset
from pages import EVERY, blocks_of, modules_of
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from graspl.cli import main

SNIPPETS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in EVERY
    for number, block in enumerate(blocks_of(page, "python"))
    if block not in modules_of(page).values()
]
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}


@pytest.fixture
def reader(model_folder, tmp_path, monkeypatch):
    """Return what the pages' Python takes for granted, in a folder with a model and directions for it."""
    from trl import SFTConfig, SFTTrainer  # seconds

    # Its defaults want a GPU
    quick = partial(
        SFTConfig, use_cpu=True, bf16=False, report_to="none", num_train_epochs=1, disable_tqdm=True
    )
    monkeypatch.setattr("trl.trainer.sft_trainer.SFTConfig", quick)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder("llama"), "my-model")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    fit = [
        "fit",
        "--model=graspl.methods.LoRALitModule",
        "--data=graspl.data.ChatDataModule",
        "--data.train=train.jsonl",
    ]
    quick = ["--trainer.max_steps=4", "--trainer.accelerator=cpu", "--trainer.default_root_dir=naive"]
    assert main([*fit, *quick, "--model.base_model=my-model", "--trainer.enable_progress_bar=false"]) == 0
    assert main(["export", "naive", "--out=my-adapter"]) == 0
    found = ["--method=graspl.activations.NaturalDirections", "--method.text=train.jsonl"]
    assert main(["identify", "naive", *found, "--out=directions.safetensors"]) == 0
    model = get_peft_model(AutoModelForCausalLM.from_pretrained("my-model"), LoraConfig(**LORA))
    tokenizer = AutoTokenizer.from_pretrained("my-model")
    encoded = [
        tokenizer(f"{row['prompt']} {row['completion']}", return_tensors="pt") for row in CHAT_ROWS[:4]
    ]
    batches = [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in encoded]
    return {
        "SFTTrainer": SFTTrainer, "lora": LoraConfig(**LORA), "rows": Dataset.from_list(CHAT_ROWS), "model": model,
        "batches": batches, "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-3),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning"
)  # TRL's and Transformers' own defaults
@pytest.mark.parametrize("block", SNIPPETS)
def test_python_in_a_page_runs(block, reader):
    Path("page.py").write_text(block)
    left = runpy.run_path("page.py", init_globals=reader)
    assert {"trainer", "held", "answers"} & set(left)
    if "trainer" in left:
        assert left["trainer"].state.global_step > 0
