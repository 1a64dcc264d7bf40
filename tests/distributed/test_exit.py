"""A process that ran a fit leaves its process group in order, also after an error and with FSDP2's meshes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHAT_ROWS
from pair import free_port

ONLY_LINUX = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux alone"
)

# An error's traceback holds the group, as that of a failed training step does
SCRIPT = """
import atexit, pathlib, sys, torch, torch.distributed as dist
from graspl.training_cli import leave_process_group

def threads():
    return [each.read_text().strip() for each in pathlib.Path("/proc/self/task").glob("*/comm")]

atexit.register(lambda: print(any("gloo" in each for each in threads())))  # runs last
atexit.register(leave_process_group)

def step(group):
    dist.all_reduce(torch.ones(1), group=group)
    print(any("gloo" in each for each in threads()))
    if sys.argv[2] == "error":
        raise RuntimeError("made to fail")

dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
step(dist.group.WORLD)
"""


@ONLY_LINUX
@pytest.mark.parametrize("how", ["well", "error"])
def test_no_thread_of_the_group_outlives_it(tmp_path, how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), how],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if how == "error" else 0), done.stderr
    assert done.stdout.split() == ["True", "False"]  # the first is the positive control


FIT = """
import atexit, pathlib, sys
from graspl.cli import main

def threads():
    return [each.read_text().strip() for each in pathlib.Path("/proc/self/task").glob("*/comm")]

atexit.register(lambda: print("gloo" if any("gloo" in each for each in threads()) else "none"))  # runs last
sys.exit(main(sys.argv[1:]))
"""


@ONLY_LINUX
@pytest.mark.slow
@pytest.mark.distributed
def test_no_thread_outlives_a_fit_of_fsdp2(model_folder, tmp_path):
    """The command line and the device mesh held the group, and such processes aborted now and then after a good fit."""
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    command = [
        sys.executable, "-c", FIT, "fit", "--model=graspl.methods.LoRALitModule", f"--model.base_model={model_folder()}",
        "--data=graspl.data.ChatDataModule", "--data.train=train.jsonl", "--data.batch_size=2",
        "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=2", "--trainer.max_steps=1",
        "--trainer.strategy=ModelParallelStrategy", "--trainer.strategy.data_parallel_size=2",
        "--trainer.strategy.tensor_parallel_size=1", "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    # As torchrun starts one process on each of two nodes
    job = {
        "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "one", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    started = [
        subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | job | {"RANK": str(rank), "GROUP_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert [out.split()[-1] for out, _ in said] == ["none", "none"]
