"""A study that is killed at any moment and started again ends with the same table."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
def test_a_study_killed_at_any_moment_ends_with_the_same_table(graspl, study, tmp_path):
    given = study(seeds=[0], jobs=2, without=["broken"])
    arguments = [sys.executable, "-m", "graspl", *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    said = tmp_path / "said.txt"

    def start(out):
        with said.open("w") as file:
            command = [*arguments, "--out", str(tmp_path / out)]
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=file, stderr=file)

    code, _, err = graspl(*given, "--out", "whole")
    assert code == 0, err
    # Killed when a file of each kind has just come into being, wherever that leaves the others
    for sign in ("*/seed_0/metrics.csv", "*/seed_0/adapter", "*/seed_0/study_done.json"):
        before = len(list((tmp_path / "killed").glob(sign)))
        running, until = start("killed"), time.monotonic() + 120
        while len(list((tmp_path / "killed").glob(sign))) == before and running.poll() is None:
            assert time.monotonic() < until, f"no {sign}"
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait()
        time.sleep(1.0)  # its workers end with it
    last = start("killed")
    assert last.wait() == 0, said.read_text()
    found = [json.loads((tmp_path / name / "comparison.json").read_text()) for name in ("whole", "killed")]
    assert found[0] == found[1]
    tables = [(tmp_path / name / "comparison.md").read_text() for name in ("whole", "killed")]
    assert tables[0] == tables[1]
