"""How fits share the machine, and what becomes of one on several devices."""

import logging
import os
import signal
import sys
import time
from threading import Thread

import pytest
import torch
import yaml

from graspl.errors import GrasplError
from graspl.studies import steps, workers
from graspl.studies.plan import plan_fits


def test_fits_share_the_threads_that_this_process_may_use(monkeypatch):
    class Pool:
        def __init__(self, jobs, _context, _start, given):
            self.threads = jobs, given[0]
            raise Asked(self.threads)

    class Asked(Exception):
        pass

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    for jobs, threads in ((1, 6), (2, 3), (8, 1)):
        with pytest.raises(Asked) as asked:
            list(workers.run_fits([], jobs=jobs))
        assert asked.value.args[0] == (jobs, threads)


@pytest.fixture
def instead(monkeypatch, tmp_path):
    """Return a function that lets a shell script run in place of `python -m graspl`."""

    def put(script):
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return put


def apart(log):
    with log.open("a", encoding="utf-8") as output:
        steps.run_apart(["fit"], output, log)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo graspl: error: rows.jsonl: is empty >&2; exit 2", "^rows.jsonl: is empty$"),
        ("echo Traceback; exit 1", "^ended with exit code 1; see .*fit.log$"),
    ],
)
def test_a_fit_in_processes_of_its_own_says_why_it_failed(instead, tmp_path, script, words):
    log = tmp_path / "fit.log"
    log.write_text("graspl: error: of an earlier one\n")
    instead(script)
    with pytest.raises(GrasplError, match=words):
        apart(log)


@pytest.mark.skipif(sys.platform == "win32", reason="no groups of processes")
def test_an_interrupt_reaches_every_process_of_a_fit(instead, tmp_path, interruptible, soon):
    log = tmp_path / "fit.log"
    instead(
        f"sh -c 'trap \"touch {tmp_path}/told; exit 1\" INT; touch {tmp_path}/began; while :; do sleep 0.05; done'"
    )

    def interrupt():
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        apart(log)
    assert (tmp_path / "told").exists()
    assert not steps._apart


@pytest.mark.slow
@pytest.mark.distributed
def test_a_fit_of_a_study_may_take_several_devices(study, tmp_path, monkeypatch):
    """Lightning starts the command again, once a device: within a worker there was none to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    logger = logging.getLogger("graspl")
    for name in ("handlers", "propagate", "level"):  # As they are, to be put back
        monkeypatch.setattr(logger, name, getattr(logger, name))
    monkeypatch.setenv("SLURM_NTASKS", "1")  # As within a job; Lightning would wait for what srun starts
    monkeypatch.setenv("SLURM_JOB_NAME", "study")
    study(without=["broken", "grasp"])
    planned = yaml.safe_load((tmp_path / "study.yaml").read_text())
    naive = planned["methods"]["naive"] | {"trainer": {"devices": 2, "strategy": "ddp", "max_steps": 2}}
    naive["model"]["init_args"]["base_model"] = planned["base_model"]
    (fit,) = plan_fits(tmp_path / "fit.yaml", {"naive": naive}, [0], tmp_path / "out")
    fit.folder.parent.mkdir(parents=True)
    assert steps.run_step(fit) is None, fit.log.read_text()
    assert fit.is_done()
    assert "MEMBER: 2/2" in fit.log.read_text()
