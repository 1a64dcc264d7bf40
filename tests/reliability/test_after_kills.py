"""What a process that was killed at a bad moment leaves, and what the next one makes of it."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from graspl.callbacks import RowsLogger, WholeCheckpoints, log
from graspl.errors import GrasplError
from graspl.runs import RunFolder, atomic_path, remove_left_over, write_text_atomic
from graspl.studies import workers
from graspl.studies.plan import Fit

SHORT = {
    "model.optimizer": "torch.optim.AdamW",
    "model.optimizer.lr": 1e-2,
    "trainer.max_steps": 4,
    "trainer.val_check_interval": 2,
    "trainer.check_val_every_n_epoch": "null",
    "trainer.log_every_n_steps": 1,
    "checkpoint.every_n_train_steps": 2,
}


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.json.abcd1234", ".adapter.zzzzzzzz", ".mine.abcd1234", ".a.json.longer-than-that"):
        (tmp_path / name).mkdir()
    (tmp_path / ".a.json.abcd1234" / "a.json").write_text("{")
    (tmp_path / ".adapter.zzzzzzzz" / ".tmpAbC123").write_text("of safetensors")
    (tmp_path / ".mine.abcd1234" / "notes.txt").write_text("of the user")
    with atomic_path(tmp_path / "b.json") as held:  # Positive control: this one is in use
        remove_left_over(tmp_path)
        held.write_text("{}")
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        ".a.json.longer-than-that",
        ".mine.abcd1234",
        "b.json",
    ]


def test_a_folder_whose_replacement_was_cut_off_is_there_again(tmp_path):
    """Where two folders cannot change places in one step, there is an instant with neither in its place."""
    for name in ("adapter", "adapter.old"):
        (tmp_path / ".adapter.abcd1234" / name).mkdir(parents=True)
        (tmp_path / ".adapter.abcd1234" / name / "weights").write_text(name)
    write_text_atomic(tmp_path / "other", "")
    assert (tmp_path / "adapter" / "weights").read_text() == "adapter"
    assert not list(tmp_path.glob(".*"))


def test_a_row_that_was_cut_off_does_not_count(tmp_path):
    run = RunFolder(tmp_path)
    run.metrics.write_text("step,val/kl\r\n1,0.5\r\n2,0.1")  # of 0.125
    assert run.read_metrics() == [{"step": 1.0, "val/kl": 0.5}]


def test_a_run_that_goes_on_with_a_validation_keeps_the_row_before_it(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / "metrics.part1.csv").write_text("step,train/loss,val/kl\n0,3,\n1,2,\n1,,0.4\n2,9,\n")
    run.metrics.write_text("step,train/loss,val/kl\n1,,0.5\n2,1,\n")
    rows = [(row["step"], row.get("train/loss"), row.get("val/kl")) for row in run.read_metrics()]
    assert rows == [(0, 3, None), (1, 2, None), (1, None, 0.5), (2, 1, None)]


def test_a_new_column_never_leaves_the_log_without_its_rows(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    def logged(folder):
        logger = RowsLogger(str(folder), name="", version="")
        for step, name in enumerate("ab"):
            logger.log_metrics({name: 1.0}, step=step)
            logger.save()

    logged(tmp_path / "whole")
    assert RunFolder(tmp_path / "whole").read_metrics() == [{"a": 1.0, "step": 0.0}, {"b": 1.0, "step": 1.0}]
    monkeypatch.setattr(log, "write_text_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        logged(tmp_path / "cut")
    assert RunFolder(tmp_path / "cut").read_metrics() == [{"a": 1.0, "step": 0.0}]


def test_a_checkpoint_is_written_behind_the_validation_of_its_step(
    graspl, chat_options, write_rows, monkeypatch
):
    """Else a fit that is killed in its last validation would go on from its end, and never make that validation."""
    logged, plain = [], WholeCheckpoints.save_checkpoint

    def save(self, checkpoint, path, storage_options=None):
        steps = [row["step"] for row in RunFolder("run").read_metrics() if "val/adherence" in row]
        logged.append((checkpoint["global_step"], steps[-1:]))
        return plain(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", save)
    code, _, err = graspl("fit", *chat_options(**SHORT))
    assert code == 0, err
    assert logged == [(2, [1.0]), (2, [1.0]), (4, [3.0]), (4, [3.0])]


def test_a_fit_that_goes_on_after_its_last_step_leaves_all_files(graspl, chat_options, write_rows):
    asked = write_rows([{"id": "a", "question": "how do i open the file"}], "asked.jsonl")
    free = {"class_path": "graspl.data.suites.FreeFormQuestions", "init_args": {"source": str(asked)}}
    judge = {"class_path": "graspl.evaluation.judges.Matches", "init_args": {"pattern": "a"}}
    answers = {"class_path": "graspl.callbacks.JudgeAnswers", "init_args": {"judges": {"*": judge}}}
    callbacks = [answers, {"class_path": "graspl.callbacks.MeasureCost"}]
    Path("more.yaml").write_text(
        yaml.safe_dump(
            {"data": {"init_args": {"suites": {"free": free}}}, "trainer": {"callbacks": callbacks}}
        )
    )
    command = ["fit", *chat_options(**SHORT), "--config=more.yaml"]
    code, _, err = graspl(*command)
    assert code == 0, err
    run, names = (
        RunFolder("run"),
        ("adapter", "cost.json", "generations.jsonl", "judged.json", "judgements.jsonl"),
    )
    before = {file.name: file.read_bytes() for name in names[1:] for file in [run.path / name]}
    weights = (run.adapter / "adapter_model.safetensors").read_bytes()
    for name in names:
        shutil.rmtree(run.path / name) if name == "adapter" else (run.path / name).unlink()
    code, _, err = graspl(*command, "--ckpt_path=last")
    assert code == 0, err
    assert {name: (run.path / name).read_bytes() for name in before} == before
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == weights
    assert json.loads((run.path / "cost.json").read_text())["step_flops"] > 0


def end_at_once(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_the_system_kills_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "_start", end_at_once)
    fit = Fit("naive", 0, tmp_path / "fit", tmp_path / "base.yaml", {})
    with pytest.raises(GrasplError, match="jobs: the system killed a process"):
        list(workers.run_fits([fit], jobs=1))
