"""A fit that is killed goes on as if nothing had happened."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import CHAT_ROWS
from safetensors.torch import load_file

from graspl.runs import RunFolder

STEPS = 60


@pytest.fixture
def command(model_folder, write_rows, tmp_path):
    """Return a function: run folder -> a GRASP fit with everything in it that could go wrong on resuming."""
    rows = write_rows(CHAT_ROWS)
    common = [
        f"--model.base_model={model_folder()}", "--data=graspl.data.ChatDataModule", f"--data.train={rows}",
        "--data.batch_size=3", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    start = [sys.executable, "-m", "graspl", "fit"]
    constraints = [
        {"class_path": f"graspl.constraints.{kind}Constraint", "init_args": {"k": 2}}
        for kind in ("Activation", "Residual")
    ]
    natural = {"class_path": "graspl.activations.NaturalDirections", "init_args": {"k": 2}}

    def fit(folder, *options):
        # Directions are found within the fit, so a resumed run must have them from the checkpoint
        return [
            *start, "--model=graspl.methods.GRASPLitModule", *common, f"--data.text={rows}",
            "--model.directions=graspl.methods.ThrowAwayFit",
            f"--model.directions.identification={json.dumps(natural)}",
            f"--model.constraints={json.dumps(constraints)}", "--model.lora.lora_dropout=0.2",
            "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=1e-3",
            "--model.schedule=cosine", "--model.warmup_steps=7", f"--trainer.max_steps={STEPS}",
            "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=11", "--trainer.log_every_n_steps=1",
            "--checkpoint.every_n_train_steps=7", f"--trainer.default_root_dir={folder}", *options,
        ]  # fmt: skip

    return fit


def run(command, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_killed_or_interrupted_in_mid_fit_and_resumed_it_ends_with_the_same_weights(command, tmp_path):
    done = run(command("whole"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "found by NaturalDirections" in done.stderr
    for name, end, code in (("killed", signal.SIGKILL, -signal.SIGKILL), ("interrupted", signal.SIGINT, 130)):
        check_end(command, tmp_path, name, end, code)


def check_end(command, tmp_path, name, end, code):
    """End a fit by a signal when its first checkpoint is there, go on, and compare with the undisturbed one."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(name),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        until = time.monotonic() + 300
        while not last.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(end)
        said = process.stderr.read()
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert last.exists()
    assert not (tmp_path / name / "adapter").exists()  # positive control: it was in the middle
    if end == signal.SIGINT:
        assert "go on with the same command and --ckpt_path last" in said
        assert not (tmp_path / name / ".claimed").exists()
        step = int(re.search(r"interrupted at step (\d+)", said)[1])
        assert torch.load(last, weights_only=True)["global_step"] == step  # noqa: TID251 - not the last regular one
    resumed = run(command(name, "--ckpt_path=last"), tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "Restored all states" in resumed.stderr
    assert "found by NaturalDirections" not in resumed.stderr  # the checkpoint carries them
    whole, ended = (
        load_file(tmp_path / each / "adapter" / "adapter_model.safetensors") for each in ("whole", name)
    )
    assert whole.keys() == ended.keys()
    assert all(whole[key].equal(ended[key]) for key in whole)


@pytest.mark.parametrize(
    ("until", "first", "last"),
    [("max_steps", 3, 6), ("max_steps", 11, 13), ("max_steps", 8, 10), ("max_epochs", 1, 2)],
)
def test_a_finished_fit_goes_on_with_more_steps_on_the_very_next_rows(
    graspl, chat_options, until, first, last
):
    """8 batches an epoch: the fit ends within the first, within the second, and twice at the end of the first."""
    options = {"data.batch_size": 4, "model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 1e-2}
    options |= {"trainer.max_steps": -1, "trainer.log_every_n_steps": 1}

    def adapter(folder, end, *more):
        given = options | {"trainer.default_root_dir": folder, f"trainer.{until}": end}
        code, _, err = graspl("fit", *chat_options(**given), *more)
        assert code == 0, err
        return load_file(f"{folder}/adapter/adapter_model.safetensors")

    whole = adapter("whole", last)
    half = adapter("parts", first)
    parts = adapter("parts", last, "--ckpt_path=last")
    assert all(whole[name].equal(parts[name]) for name in whole)
    assert not all(whole[name].equal(half[name]) for name in whole)
    losses = [
        [row["train/loss"] for row in RunFolder(folder).read_metrics() if "train/loss" in row]
        for folder in ("whole", "parts")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == (last if until == "max_steps" else 16)
