"""`run.json`: which commands ran in a run folder, and how each ended."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from graspl.errors import GrasplError
from graspl.runs import RunFacts, RunFolder, running
from graspl.runs.given import without_secrets

FAST = {"trainer.max_steps": 1, "trainer.limit_val_batches": 1}


def facts(folder="run"):
    return json.loads(RunFolder(folder).facts.read_text())


def test_a_fit_and_a_validation_say_what_ran(graspl, chat_options):
    code, _, err = graspl("fit", *chat_options(**FAST), "--seed_everything=3")
    assert code == 0, err
    code, _, err = graspl("validate", "--config", "run/config.yaml")
    assert code == 0, err
    found = facts()
    assert found["status"] == "complete"
    fit, validation = found["commands"]
    assert (fit["command"], fit["status"], fit["seed"]) == ("fit", "complete", 3)
    assert (validation["command"], validation["status"]) == ("validate", "complete")
    assert validation["arguments"] == ["--config", "run/config.yaml"]
    assert fit["start"] <= fit["end"] <= validation["start"]
    assert set(fit["versions"]) == {"graspl", "torch", "transformers", "peft", "lightning"}
    assert all(fit["versions"].values())
    assert not list(Path("run").glob(".running*"))
    code, out, _ = graspl("verify", "run")
    assert code == 0
    assert f"run/run.json: fit: complete {fit['end']}" in out
    code, out, _ = graspl("report", "run")
    assert code == 0
    assert "fit complete" not in out  # What went well is on the page
    page = Path("report/report.html").read_text()
    assert 'id="run-facts"' in page
    assert "graspl validate --config run/config.yaml" in page
    assert "torch " + fit["versions"]["torch"] in page
    assert json.loads(Path("report/summary.json").read_text())["run"]["commands"][0]["seed"] == 3


def test_a_refused_fit_leaves_no_folder_and_a_failed_one_its_reason(graspl, chat_options, monkeypatch):
    from lightning import Trainer

    code, _, _ = graspl("fit", *chat_options(**FAST, **{"data.train": "absent.jsonl"}))
    assert code == 2
    assert not Path("run").exists()

    def fail(self, *_, **__):
        RunFolder("run").checkpoints.mkdir()
        (RunFolder("run").checkpoints / "last.ckpt").touch()
        raise GrasplError("train/loss: is not finite at https://me:secret@host; lower it\nand more")

    monkeypatch.setattr(Trainer, "_run", fail)
    code, _, err = graspl("fit", *chat_options(**FAST))
    assert code == 2, err
    (fit,) = facts()["commands"]
    assert fit["status"] == "failed"
    assert fit["reason"] == "train/loss: is not finite at https://***@host; lower it and more"


def test_an_interrupted_fit_says_so(graspl, chat_options, monkeypatch):
    from lightning import Trainer

    def interrupt(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_run", interrupt)
    code, _, err = graspl("fit", *chat_options(**FAST))
    assert code == 130, err
    assert facts()["status"] == "interrupted"


def test_a_validation_that_is_refused_leaves_nothing(graspl, chat_options):
    code, _, _ = graspl("validate", *chat_options(**FAST, **{"data.train": "absent.jsonl"}))
    assert code == 2
    assert not Path("run").exists()


def test_a_fit_that_is_refused_in_a_used_folder_leaves_its_record_alone(graspl, chat_options):
    assert graspl("fit", *chat_options(**FAST))[0] == 0
    before = RunFolder("run").facts.read_bytes()
    assert graspl("fit", *chat_options(**FAST))[0] == 2
    assert graspl("fit", *chat_options(**FAST, **{"data.max_length": 99}), "--ckpt_path=last")[0] == 2
    assert RunFolder("run").facts.read_bytes() == before


def _hold(folder, started):
    with RunFacts(folder).command("fit", 0):
        started.set()
        signal.pause()


def test_a_killed_command_is_told_from_a_running_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, started))
    process.start()
    started.wait()
    record = RunFacts(tmp_path)
    (line,) = record.lines()
    assert line.startswith("fit: started ")
    assert line.endswith(", running")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert record.read()["status"] == "started"
    assert record.lines()[0].endswith(", never ended")
    with record.command("validate", 0):
        pass
    assert [each["status"] for each in record.read()["commands"]] == ["started", "complete"]
    assert record.read()["status"] == "started"  # Of the fit
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_no_byte_of_the_record_can_be_changed(tmp_path):
    record = RunFacts(tmp_path)
    with running("fit", ["--seed_everything=1"], "{}"), record.command("fit", 1):
        pass
    before = record.path.read_bytes()
    for place in range(len(before)):
        changed = bytearray(before)
        changed[place] ^= 1
        record.path.write_bytes(bytes(changed))
        with pytest.raises(GrasplError, match=r"run\.json: .*; remove it"):
            record.read()
    record.path.write_bytes(before)
    assert record.read()["commands"][0]["arguments"] == ["--seed_everything=1"]


def test_a_changed_record_is_named_by_verify_and_report(graspl, chat_options):
    assert graspl("fit", *chat_options(**FAST))[0] == 0
    assert graspl("validate", "--config", "run/config.yaml")[0] == 0
    record = RunFolder("run").facts
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 7'))
    code, _, err = graspl("verify", "run")
    assert code == 2
    assert "run/run.json: was changed after graspl wrote it" in err
    code, _, err = graspl("report", "run")
    assert code == 0
    assert "run/run.json: was changed after graspl wrote it; remove it; it is left out" in err
    assert "Which commands ran" not in Path("report/report.html").read_text()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["--api_key", "abc"], ["--api_key", "***"]),
        (["--judges.x.api_key=abc"], ["--judges.x.api_key=***"]),
        (["--url=https://me:pw@host/v1"], ["--url=https://***@host/v1"]),
        (
            ['--j={"headers": {"Authorization": "Bearer abc"}}'],
            ['--j={"headers": {"Authorization": "*** ***"}}'],
        ),
        (["--model=hf_abcdefghijklmnopqrst"], ["--model=***"]),
        (["--x.api_key_env=OPENAI_API_KEY"], ["--x.api_key_env=OPENAI_API_KEY"]),
        (["--max_new_tokens", "64", "--max_tokens=8"], ["--max_new_tokens", "64", "--max_tokens=8"]),
    ],
)
def test_no_secret_of_a_command_is_kept(given, kept):
    assert [*without_secrets(given)] == kept
