"""Trackers named by `--log_to` get the figures of `metrics.csv`."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec

import pytest
from pages import ROOT

from graspl.callbacks.trackers import check_tracker
from graspl.errors import GrasplError

STEPS = 3


def fitted(folder, name, **environment):
    """Run a short fit that logs to a tracker; return what the process said."""
    given = [
        "--trainer.max_steps", str(STEPS), "--trainer.log_every_n_steps", "1", "--trainer.limit_val_batches", "0",
        "--trainer.default_root_dir", str(folder / "run"), "--log_to", name,
    ]  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "graspl",
        "fit",
        "--config",
        str(ROOT / "configs/organism/fit.yaml"),
        *given,
    ]
    naive = ["--model", str(ROOT / "configs/methods/naive.yaml")]
    env = os.environ | {"HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [*command, *naive],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def losses(folder):
    """Return the loss of each step, as `metrics.csv` has it."""
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    found = {int(row["step"]): float(row["train/loss"]) for row in rows}
    assert sorted(found) == list(range(STEPS))
    return found


def test_tensorboard_gets_the_losses(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = fitted(tmp_path, "tensorboard")
    assert done.returncode == 0, done.stderr
    events = EventAccumulator(str(tmp_path / "run" / "logs")).Reload()
    found = {each.step: each.value for each in events.Scalars("train/loss")}
    assert found == pytest.approx(losses(tmp_path), rel=1e-5)


@pytest.mark.skipif(find_spec("trackio") is None, reason="needs the extra trackio")
def test_trackio_gets_the_losses_once(tmp_path):
    done = fitted(tmp_path, "trackio")
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "hf" / "trackio" / "graspl.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    found = {step: json.loads(metrics).get("train/loss") for name, step, metrics in rows if name == "run"}
    assert {step: loss for step, loss in found.items() if loss is not None} == pytest.approx(losses(tmp_path))
    assert (done.stdout + done.stderr).count("Run finished") == 1


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs the extra wandb")
def test_wandb_keeps_a_run_of_its_own_and_a_missing_login_is_one_line(tmp_path):
    done = fitted(tmp_path, "wandb", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert losses(tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    done = fitted(again, "wandb", WANDB_MODE="online", WANDB_API_KEY="", HOME=str(again))
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("graspl: error: log_to: ")
    assert "wandb login" in last
    assert "Traceback" not in done.stderr


def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(monkeypatch):
    monkeypatch.setattr("graspl.callbacks.trackers.find_spec", lambda name: None)
    with pytest.raises(GrasplError, match=r"log_to: wandb is not installed; pip install 'graspl\[wandb\]'"):
        check_tracker("wandb")
    check_tracker(None)


def test_a_name_that_is_no_tracker_is_refused_with_those_that_are(graspl, tmp_path):
    code, _, err = graspl(
        "fit", "--config", str(ROOT / "configs/organism/fit.yaml"), "--log_to", "mlflow",
        "--trainer.default_root_dir", str(tmp_path / "run"),
    )  # fmt: skip
    assert code == 2
    assert all(name in err for name in ("log_to", "tensorboard", "trackio", "wandb"))
    assert not (tmp_path / "run").exists()
