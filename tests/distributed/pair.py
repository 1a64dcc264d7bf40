"""Processes that run many commands together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from worker import LIMIT

CONFIGS = Path(__file__).parents[2] / "configs" / "trainer"
WORKER = Path(__file__).with_name("worker.py")
DDP = ["--trainer.strategy=ddp", "--trainer.devices=2"]
FSDP2 = [
    f"--config={CONFIGS / 'fsdp.yaml'}",
    "--trainer.strategy.data_parallel_size=2",
    "--trainer.devices=2",
]
FSDP1 = ['--trainer.strategy={"class_path": "flat.FlatSharded"}', "--trainer.devices=2"]


def free_port():
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_together(commands, folder, scratch, processes=2):
    """Run commands of graspl one after the other in some processes, as torchrun would start them.

    Args:
        commands: a list of arguments each.
        folder: to run in.
        scratch: for the list and the logs.
        processes: how many.
    """
    jobs = scratch / "jobs.json"
    jobs.write_text(json.dumps([[str(each) for each in command] for command in commands]))
    start_together([WORKER, jobs], folder, scratch, processes)


def start_together(arguments, folder, scratch, processes=2):
    """Run a script of Python in some processes that know of one another.

    Args:
        arguments: the script and what it is given.
        folder: to run in.
        scratch: for the logs.
        processes: how many.
    """
    given = os.environ | {
        "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests",
    }  # fmt: skip
    logs, started = [scratch / f"{rank}.log" for rank in range(processes)], []
    for rank, log in enumerate(logs):
        with log.open("w") as file:
            started.append(
                subprocess.Popen(
                    [sys.executable, *map(str, arguments)],
                    env=given | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    cwd=folder,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [process.wait(timeout=LIMIT) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0] * processes, "\n".join(log.read_text()[-3000:] for log in logs)
