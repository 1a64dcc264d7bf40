"""The scripts for many nodes, as they are shipped, with two nodes of one process each on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHAT_ROWS, REPOSITORY
from pair import free_port
from safetensors.torch import load_file

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
SCRIPTS = REPOSITORY / "configs" / "trainer"
# Starts every task of a job with the variables that Slurm gives it
SRUN = """#!/usr/bin/env bash
[ "${1:-}" = --version ] && exit 0
for task in 0 1; do
    SLURM_PROCID=$task SLURM_NODEID=$task SLURM_LOCALID=0 "$@" &
    started+=($!)
done
for each in "${started[@]}"; do wait "$each"; done
"""


@pytest.fixture
def options(model_folder, write_rows, tmp_path):
    """Return what is written behind the script's name, and the environment of a machine where graspl is installed."""
    rows = write_rows(CHAT_ROWS)
    (tmp_path / "configs").symlink_to(
        REPOSITORY / "configs"
    )  # the scripts are run from the repository's folder
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "srun").write_text(SRUN)
    (bin_folder / "srun").chmod(0o755)
    path = f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    given = [
        "--model=graspl.methods.LoRALitModule", f"--model.base_model={model_folder()}", "--data=graspl.data.ChatDataModule",
        f"--data.train={rows}", "--data.batch_size=2", "--trainer.accelerator=cpu", "--trainer.max_steps=2",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--checkpoint.every_n_train_steps=1",
        "--trainer.default_root_dir=run",
    ]  # fmt: skip
    return given, environment | {"PATH": path, "OMP_NUM_THREADS": "1"}


def test_torchrun_starts_a_fit_on_two_nodes(options, tmp_path):
    given, environment = options
    nodes = environment | {"NODES": "2", "DEVICES": "1", "PORT": str(free_port())}
    started = [
        subprocess.Popen(
            ["bash", SCRIPTS / "nodes.sh", *given],
            cwd=tmp_path, env=nodes | {"NODE": str(node)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "MEMBER: 2/2" in said[1]
    assert load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")


def test_a_slurm_job_starts_a_fit_on_two_nodes_and_goes_on_when_it_is_queued_again(options, tmp_path):
    given, environment = options
    job = environment | {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "graspl", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
    }  # fmt: skip
    for steps in (2, 4):
        done = subprocess.run(
            ["bash", SCRIPTS / "nodes.sbatch", *given, f"--trainer.max_steps={steps}"],
            cwd=tmp_path,
            env=job | {"MASTER_PORT": str(free_port())},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("Restored all states" in done.stderr) == (steps == 4)
        assert f"`max_steps={steps}` reached" in done.stderr
