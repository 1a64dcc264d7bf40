"""Each worker process of a study has GPUs of its own. The GPUs are simulated: only their number and names count here."""

import logging
import os
import time
from pathlib import Path

import pytest
import torch

from graspl.errors import GrasplError
from graspl.studies import workers
from graspl.studies.gpus import devices_of, shared_out, visible_gpus
from graspl.studies.plan import Fit


@pytest.fixture
def simulated(monkeypatch):
    """Return a function that lets this process see so many GPUs, and CUDA_VISIBLE_DEVICES as given."""

    def see(number, named=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if named is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)

    return see


@pytest.fixture
def fit(tmp_path):
    """Return a function that plans a fit whose trainer has these settings."""
    base = tmp_path / "fit.yaml"
    base.write_text("trainer: {max_epochs: 1}")
    return lambda **trainer: Fit("naive", 0, tmp_path / "fit", base, {"trainer": trainer})


@pytest.mark.parametrize(
    ("number", "named", "seen"),
    [
        (0, None, []),
        (3, None, ["0", "1", "2"]),
        (2, "5, 3", ["5", "3"]),
        (0, "", []),
        # CUDA stops at the first name that it does not know
        (1, "2,-1,3", ["2"]),
        (2, "GPU-8a,MIG-3b/1/0", ["GPU-8a", "MIG-3b/1/0"]),
    ],
)
def test_what_this_process_sees_is_what_it_may_share_out(simulated, number, named, seen):
    simulated(number, named)
    assert visible_gpus(os.environ) == seen


@pytest.mark.parametrize(
    ("trainer", "jobs", "number", "named", "shares"),
    [
        ({}, 3, 4, None, (3, ["0", "1", "2"])),
        ({"devices": 1}, 2, 2, "7,GPU-8a", (2, ["7", "GPU-8a"])),
        ({"devices": 2}, 2, 5, None, (2, ["0,1", "2,3"])),
        ({"devices": "2", "accelerator": "gpu"}, 2, 4, "3,2,1,0", (2, ["3,2", "1,0"])),
        ({"devices": "auto"}, 2, 4, None, (2, ["0", "1"])),
        # One process alone is a fit by itself; without GPUs nothing is shared out
        ({"devices": 2}, 1, 4, None, (1, [])),
        ({}, 3, 0, None, (3, [])),
        ({"devices": 2, "accelerator": "cpu"}, 3, 2, None, (3, [])),
    ],
)
def test_each_process_has_its_own_set(simulated, fit, trainer, jobs, number, named, shares):
    simulated(number, named)
    assert shared_out([fit(**trainer)], jobs) == shares


def test_more_processes_than_the_gpus_are_enough_for_are_not_started(simulated, fit, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("graspl"), "propagate", True)
    simulated(5)
    with caplog.at_level(logging.INFO):
        assert shared_out([fit(devices=2), fit(devices=1)], 4) == (2, ["0,1", "2,3"])
    assert caplog.messages == ["jobs: 2 at a time, not 4: each takes 2 of 5 visible GPUs"]


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (3, "naive, seed 0 asks for 3 GPUs, and 2 can be had"),
        ([1], r"names its GPUs, \[1\]"),
        ("0,1", "names its GPUs"),
    ],
)
def test_a_fit_that_cannot_be_given_its_gpus_is_refused(simulated, fit, devices, words):
    simulated(2)
    with pytest.raises(GrasplError, match=words):
        shared_out([fit(devices=devices)], 2)


@pytest.mark.parametrize(
    ("trainer", "gpus", "number"),
    [
        ({}, 4, 4),
        ({}, 0, 1),
        ({"accelerator": "cpu"}, 4, 1),
        ({"accelerator": "cpu", "devices": 2}, 0, 2),
        ({"devices": [1, 3]}, 4, 2),
        ({"devices": "1,3"}, 4, 2),
        ({"devices": "2,"}, 4, 1),
        ({"devices": -1}, 3, 3),
    ],
)
def test_devices_are_counted_as_the_trainer_does(trainer, gpus, number):
    assert devices_of(trainer, gpus) == number


class Reporting:
    """A step that says which GPUs its process was given, and waits until the others have said it too."""

    def __init__(self, name: str, folder: Path, others: int) -> None:
        self.name, self.folder, self.others, self.log = name, folder, others, folder / f"{name}.log"

    def is_done(self) -> bool:
        return False

    def prepare(self) -> list[str]:
        # Also read by a process that imported torch before it was given them
        given = [os.environ["CUDA_VISIBLE_DEVICES"], str(torch.cuda.is_initialized())]
        (self.folder / f"{self.name}.given").write_text(" ".join(given))
        until = time.monotonic() + 60
        while len(list(self.folder.glob("*.given"))) < self.others and time.monotonic() < until:
            time.sleep(0.01)
        return ["fit", "--config=none.yaml"]

    def mark_done(self, seconds: float) -> None:
        raise AssertionError


def test_processes_at_a_time_are_given_different_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    steps = [Reporting(name, tmp_path, 2) for name in ("first", "second")]
    ended = dict(workers.run_fits(steps, jobs=2, gpus=["4", "GPU-8a"]))
    assert all("none.yaml" in why for why in ended.values()), ended  # They ran, and nothing else went wrong
    assert sorted(each.read_text() for each in tmp_path.glob("*.given")) == ["4 False", "GPU-8a False"]
