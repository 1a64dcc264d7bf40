"""A study on a real Ray cluster of this machine, one node of which is lost midway. `make extras` installs Ray and runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray")


@pytest.fixture
def started(study, tmp_path):
    """Return a function that starts a study with a few more steps than usual, so that there is a midway."""
    given = study(without=["broken"], seeds=[0])
    base = yaml.safe_load((tmp_path / "fit.yaml").read_text())

    def start(*more, steps=60):
        base["trainer"] |= {"max_steps": steps, "val_check_interval": 4}
        (tmp_path / "fit.yaml").write_text(yaml.safe_dump(base))
        command = [sys.executable, "-m", "graspl", *given, *more]
        return subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    return start


@pytest.fixture(scope="module")
def cluster():
    """Yield a cluster of two nodes with one core each, which run fits, and a head that runs none."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
        made.shutdown()


def stopped_on(cluster, fit):
    """Stop the worker that runs a fit where it is, and return its node and its process; None where the fit has just ended."""
    claim = str(fit.with_name(f".{fit.name}.claimed"))
    for node in cluster.worker_nodes:
        (raylet,) = node.all_processes["raylet"]
        for worker in (
            Path(f"/proc/{raylet.process.pid}/task/{raylet.process.pid}/children").read_text().split()
        ):
            with suppress(OSError):  # A file or the process is gone by now
                if claim in [str(each.readlink()) for each in Path(f"/proc/{worker}/fd").glob("*")]:
                    os.kill(int(worker), signal.SIGSTOP)
                    return (node, int(worker)) if fit in fits_under_way(fit.parents[1]) else None
    return None


def fits_under_way(folder):
    """Return the fits that have a checkpoint and have not ended."""
    begun = [each.parents[1] for each in folder.glob("*/seed_0/checkpoints/last.ckpt")]
    return [each for each in begun if not (each / "adapter").exists()]


def wait_until(running, happened):
    until = time.monotonic() + 200
    while not happened():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def commands_in(folder):
    return [each["status"] for each in json.loads((folder / "run.json").read_text())["commands"]]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks up processes in /proc")
@pytest.mark.filterwarnings("default")
def test_a_study_that_loses_a_node_has_the_table_of_undisturbed_processes(started, cluster, tmp_path):
    tasks = started("--engine", "ray", "--ray.address", cluster.address, "--out", "ray")
    folder = tmp_path / "ray"
    found = []

    def stopped():
        for each in fits_under_way(folder):
            found[:] = (each, stopped_on(cluster, each))
            if found[1] is not None:
                return True
        return False

    wait_until(tasks, stopped)
    lost, (node, worker) = found
    cluster.remove_node(node, allow_graceful=False)
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    said = tasks.communicate(timeout=200)
    assert tasks.returncode == 0, said
    # One fit was begun again, and went on from its checkpoint
    assert commands_in(lost) == ["started", "complete"]
    assert commands_in(folder) == ["complete"]
    assert not list(folder.rglob(".*"))
    assert "2 fits, 0 of them done already" in said[1]
    assert "[2/2, 0 min left]" in said[1]
    whole = started("--jobs", "2", "--out", "whole")
    assert whole.wait(timeout=200) == 0
    for name in ("comparison.json", "comparison.md", "comparison.csv", "comparison.svg"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    for method in ("naive", "grasp"):
        weights = [
            (tmp_path / out / method / "seed_0/adapter/adapter_model.safetensors").read_bytes()
            for out in ("ray", "whole")
        ]
        assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_interrupt_ends_the_fits_on_ray_too(interruptible, started, cluster, tmp_path):
    tasks = started("--engine", "ray", "--ray.address", cluster.address, "--out", "ray", steps=5000)
    folder = tmp_path / "ray"
    wait_until(tasks, lambda: fits_under_way(folder))
    (under_way, *_) = fits_under_way(folder)
    tasks.send_signal(signal.SIGINT)
    said = tasks.communicate(timeout=200)
    assert tasks.returncode == 130, said
    assert commands_in(folder) == commands_in(under_way) == ["interrupted"]
    assert not list(folder.rglob(".*"))
