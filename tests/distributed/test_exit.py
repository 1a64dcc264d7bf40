"""A process that ran a fit leaves its process group in order, also after an error."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux alone")
@pytest.mark.parametrize("how", ["well", "error"])
def test_no_thread_of_the_group_outlives_it(tmp_path, how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), how],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if how == "error" else 0), done.stderr
    assert done.stdout.split() == ["True", "False"]  # the first is the positive control
