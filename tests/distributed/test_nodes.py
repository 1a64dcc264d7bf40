"""The pages' commands for many nodes, with two nodes of one process each on this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHAT_ROWS, REPOSITORY
from pages import commands_of, on_a_tiny_model
from pair import free_port
from safetensors.torch import load_file

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
# Starts every task of a job with the variables that Slurm gives it
SRUN = """#!/usr/bin/env bash
[ "${1:-}" = --version ] && exit 0
for task in 0 1; do
    SLURM_PROCID=$task SLURM_NODEID=$task SLURM_LOCALID=0 "$@" &
    started+=($!)
done
for each in "${started[@]}"; do wait "$each"; done
"""
# Runs a job at once
SBATCH = """#!/usr/bin/env bash
exec bash "$@"
"""


@pytest.fixture
def machine(model_folder, tmp_path):
    """Return the environment of a machine where graspl is installed, and lay out what the pages' commands name."""
    shutil.copytree(model_folder(), tmp_path / "my-model")
    # The scripts are run from the repository's folder
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    for name in ("train", "text"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, script in (("srun", SRUN), ("sbatch", SBATCH)):
        (bin_folder / name).write_text(script)
        (bin_folder / name).chmod(0o755)
    path = f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return environment | {"PATH": path, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}


def command(start):
    """Return the page's command that begins so, on a tiny model and few steps."""
    (found,) = commands_of("docs/howto/fsdp.md", (start,))
    return on_a_tiny_model(found) + (
        " --trainer.accelerator=cpu --trainer.max_steps=2 --trainer.accumulate_grad_batches=1 --data.batch_size=2"
        " --trainer.limit_val_batches=1 --trainer.val_check_interval=null --trainer.enable_progress_bar=false"
        " --checkpoint.every_n_train_steps=1"
    )


def test_torchrun_starts_a_fit_on_two_nodes(machine, tmp_path):
    given = command("NODES=2 ").replace("HEAD=10.0.0.1", "HEAD=127.0.0.1")
    assert "NODE=0 " in given
    nodes = machine | {"DEVICES": "1", "PORT": str(free_port())}
    started = [
        subprocess.Popen(
            ["bash", "-c", given.replace("NODE=0 ", f"NODE={node} ")],
            cwd=tmp_path, env=nodes, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "MEMBER: 2/2" in said[1]
    assert load_file(tmp_path / "runs" / "grasp32b" / "adapter" / "adapter_model.safetensors")


def test_a_slurm_job_starts_a_fit_on_two_nodes_and_goes_on_when_it_is_queued_again(machine, tmp_path):
    job = machine | {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "graspl", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    for steps in (2, 4):
        done = subprocess.run(
            ["bash", "-c", f"{command('sbatch ')} --trainer.max_steps={steps}"],
            cwd=tmp_path,
            env=job | {"MASTER_PORT": str(free_port())},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("Restored all states" in done.stderr) == (steps == 4)
        assert re.search(rf"steps +{steps}\b", done.stdout)
