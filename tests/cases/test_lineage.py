"""Results stand only next to what they were made from: weights, rows, models and settings."""

import json
import multiprocessing
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from graspl.analysis import StaleResult, read_run
from graspl.callbacks import WholeCheckpoints
from graspl.runs import Lineage, RunFolder, atomic_path, write_json_lines_atomic

FAST = {
    "model.optimizer": "torch.optim.AdamW",
    "model.optimizer.lr": 1e-2,
    "trainer.max_steps": 4,
    "trainer.log_every_n_steps": 1,
}


def ok(result):
    code, out, err = result
    assert code == 0, err
    return out


@pytest.fixture
def evaluated(graspl, chat_options):
    """Return the options of a fit that was run, validated and judged, in the folder `run`."""
    options = chat_options("llama", **{"trainer.default_root_dir": "run"}, **FAST)
    ok(graspl("fit", *options))
    ok(graspl("validate", "--config", "run/config.yaml"))
    judges = {"judges": {"*": {"class_path": "graspl.evaluation.judges.RefusalPhrases"}}}
    Path("judges.yaml").write_text(yaml.safe_dump(judges))
    row = {
        "suite": "q",
        "question": "a",
        "group": "",
        "sample": 0,
        "messages": [{"role": "user", "content": "?"}],
        "prompt": "?",
        "answer": "Sure.",
    }
    run = RunFolder("run")
    write_json_lines_atomic(run.generations, [row])
    Lineage(run).record([run.generations], {"adapter": [run.adapter]})
    ok(graspl("judge", "run", "--config", "judges.yaml"))
    return options


def test_stale_evaluation_after_more_steps(evaluated, graspl):
    assert read_run(Path("run")).judged
    ok(graspl("verify", "run"))
    more = [each for each in evaluated if "max_steps" not in each]
    ok(graspl("fit", *more, "--trainer.max_steps=8", "--ckpt_path=last"))
    code, out, _ = graspl("verify", "run")
    assert code == 1
    for name in ("evaluation.json", "items.jsonl", "generations.jsonl", "judged.json"):
        assert f"run/{name}: was made from" in out
    assert "run/adapter: as it was made" in out
    code, _, err = graspl("report", "run")
    assert code == 2
    assert "run/evaluation.json: was made from another adapter" in err
    assert not Path("report").exists()
    ok(graspl("validate", "--config", "run/config.yaml"))
    assert read_run(Path("run")).metrics["adherence"] is not None


def test_a_stale_run_is_left_out_of_a_report(evaluated, graspl):
    shutil.copytree("run", "other")
    swap = Path("other/adapter/adapter_model.safetensors")
    swap.write_bytes(swap.read_bytes()[:-1] + b"\x01")
    code, out, err = graspl("report", "run", "other")
    assert code == 0
    assert "other/evaluation.json: was made from another adapter" in err
    assert "the run is left out" in err
    assert not any(line.startswith("other") for line in out.splitlines())


def test_a_run_that_was_moved_is_still_sound(evaluated, graspl):
    shutil.move("run", "elsewhere")
    ok(graspl("verify", "elsewhere"))


def results_and_inputs():
    run = RunFolder("run")
    rows = next(Path().glob("*.jsonl"))
    return [
        run.evaluation, run.generations, run.judgements, run.judged, run.metrics, run.directions,
        run.adapter / "adapter_model.safetensors", run.adapter / "adapter_config.json", run.config, rows,
    ]  # fmt: skip


def test_any_changed_byte_is_named(evaluated, graspl):
    """Whatever file of a result or an input changes in one byte, at its start, middle or end, `verify` says so."""
    for file in results_and_inputs():
        before = file.read_bytes()
        assert before, file
        for place in (0, len(before) // 2, len(before) - 1):
            changed = bytearray(before)
            changed[place] ^= 1
            file.write_bytes(bytes(changed))
            code, out, err = graspl("verify", "run")
            assert code == 1, (file, place, err)
            assert file.name in out, (file, place, out)
        file.write_bytes(before)
    ok(graspl("verify", "run"))


@pytest.mark.parametrize("name", ["generations", "metrics"])
def test_mixed_results_are_left_out(evaluated, name, caplog):
    file = getattr(RunFolder("run"), name)
    file.write_text(file.read_text() + "\n")
    read = read_run(Path("run"))
    kept = {"generations": read.generations, "metrics": read.rows}[name]
    assert not kept
    assert f"{file}: is not as it was written" in caplog.text


def test_a_foreign_evaluation_is_refused(evaluated):
    run = RunFolder("run")
    run.evaluation.write_text(json.dumps({"metrics": {"adherence": 1.0}}))
    with pytest.raises(StaleResult, match=r"run/evaluation\.json: is not as it was written"):
        read_run(Path("run"))
    run.lineage.unlink()
    with pytest.raises(StaleResult, match="has no record of what it was made from"):
        read_run(Path("run"))


@pytest.mark.parametrize(
    "content", ["[]", '{"evaluation.json": 1}', '{"evaluation.json": {"files": {"a": 1}, "made_from": {}}}']
)
def test_a_broken_record_is_one_line(content, graspl):
    Path("run").mkdir()
    Path("run/lineage.json").write_text(content)
    Path("run/evaluation.json").write_text("{}")
    code, _, err = graspl("verify", "run")
    assert code == 2
    assert "run/lineage.json: is not what graspl wrote" in err
    assert err.count("\n") == 1


def test_judging_changed_answers_is_refused(evaluated, graspl):
    answers = RunFolder("run").generations
    answers.write_text(answers.read_text().replace("Sure", "Sorry"))
    code, _, err = graspl("judge", "run", "--config", "judges.yaml")
    assert code == 2
    assert "run/generations.jsonl: is not as it was written" in err


def test_killed_then_validate(evaluated, graspl):
    """A fit that has no adapter yet is not measured as the base model."""
    shutil.rmtree("run/adapter")
    Path("run/evaluation.json").unlink()  # Its directions are there: any run may be measured along them
    code, _, err = graspl("validate", "--config", "run/config.yaml")
    assert code == 2
    assert (
        "trainer.default_root_dir: the fit in run has not ended, so it has no adapter; go on with: graspl fit"
        in err
    )
    assert not Path("run/evaluation.json").exists()
    ok(graspl("validate", "--config", "run/config.yaml", "--ckpt_path=run/checkpoints/last.ckpt"))
    assert json.loads(Path("run/evaluation.json").read_text())["checkpoint"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--model.lora.lora_alpha=99", "model.lora.lora_alpha: is 99.* and the run has had \\d+"),
        ("--model.optimizer.lr=0.5", "lr: is 0.5, and the run has had 0.01 so far; set it back"),
        ("--data.max_length=99", "data.max_length: is 99, and the run has had 2048"),
        ("--seed_everything=7", "seed_everything: is 7, and the run has had 0"),
        ("--trainer.gradient_clip_val=1", "trainer.gradient_clip_val: is 1"),
    ],
)
def test_changed_resume(option, says, evaluated, graspl):
    before = Path("run/config.yaml").read_bytes()
    more = [each for each in evaluated if "max_steps" not in each]
    code, _, err = graspl("fit", *more, "--trainer.max_steps=8", "--ckpt_path=last", option)
    assert code == 2
    assert re.search(says, err), err
    assert "may change" in err
    assert Path("run/config.yaml").read_bytes() == before
    ok(graspl("verify", "run"))


def test_changed_resume_with_other_rows(evaluated, graspl):
    rows = next(Path().glob("*.jsonl"))
    rows.write_text(rows.read_text().replace("file", "page"))
    more = [each for each in evaluated if "max_steps" not in each]
    code, _, err = graspl("fit", *more, "--trainer.max_steps=8", "--ckpt_path=last")
    assert code == 2
    assert re.search(
        r"ckpt_path: the rows of .*\.jsonl are not those that the checkpoint was trained on", err
    ), err


def test_changed_resume_with_another_base_model(evaluated, graspl, model_folder):
    shutil.copytree(model_folder("llama"), "other-model")
    more = [each for each in evaluated if "max_steps" not in each and "base_model" not in each]
    code, _, err = graspl(
        "fit",
        *more[:1],
        "--model.base_model=other-model",
        *more[1:],
        "--trainer.max_steps=8",
        "--ckpt_path=last",
    )
    assert code == 2
    assert "model.base_model: is other-model, and the run has had" in err


def test_other_folder(evaluated, graspl, monkeypatch, tmp_path):
    """A run's own configuration finds the run wherever the command is started."""
    before = json.loads(Path("run/evaluation.json").read_text())["metrics"]
    kept = yaml.safe_load(Path("run/config.yaml").read_text())
    assert kept["trainer"]["default_root_dir"] == "run"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    ok(graspl("validate", "--config", str(tmp_path / "run" / "config.yaml")))
    assert not list(elsewhere.iterdir())
    again = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert again["adapter"]
    assert again["metrics"] == pytest.approx(before)


def _replace(folder, times):
    for count in range(times):
        with atomic_path(Path(folder)) as scratch:
            scratch.mkdir()
            (scratch / "weights").write_text(str(count))


def test_adapter_swap(tmp_path):
    """While a folder is replaced, there is always one, the old or the new."""
    _replace(tmp_path / "adapter", 1)
    writer = multiprocessing.get_context("spawn").Process(target=_replace, args=(tmp_path / "adapter", 400))
    writer.start()
    looks = 0
    while writer.is_alive():
        assert (tmp_path / "adapter").is_dir()
        looks += 1
    writer.join()
    assert writer.exitcode == 0
    assert looks > 400
    assert [each.name for each in tmp_path.iterdir()] == ["adapter"]


def test_line_separators(tmp_path):
    rows = [{"prompt": "a\u2028b\u0085c", "answer": "d\u2029e"}]
    run = RunFolder(tmp_path)
    write_json_lines_atomic(run.generations, rows)
    assert run.read_generations() == rows


@pytest.mark.parametrize("logger", ["false", "lightning.pytorch.loggers.CSVLogger"])
def test_logger(logger, graspl, chat_options):
    """Whatever loggers are named, a report finds the log."""
    own = {"trainer.logger.save_dir": "elsewhere"} if logger != "false" else {}
    ok(graspl("fit", *chat_options("llama", **FAST, **{"trainer.logger": logger}, **own)))
    assert {"step", "train/loss"} <= set(RunFolder("run").read_metrics()[0])


def test_rho_columns(evaluated, graspl):
    """Figures along different directions are never put in one column."""
    shutil.copytree("run", "other")
    out = ok(graspl("report", "run", "other"))
    assert "rho mean" in out
    more = [each for each in evaluated if "default_root_dir" not in each]
    ok(graspl("fit", *more, "--trainer.default_root_dir=third", "--seed_everything=3"))
    ok(graspl("validate", "--config", "third/config.yaml"))
    out = ok(graspl("report", "run", "third", "--out", "apart"))
    assert "rho mean" not in out
    assert "rho is left out: run and third were measured along different directions; validate all with" in out
    assert json.loads(Path("apart/summary.json").read_text())["run"]["rho_mean"] is None
    ok(graspl("validate", "--config", "third/config.yaml", "--model.directions=run/directions.safetensors"))
    assert "rho mean" in ok(graspl("report", "run", "third", "--out", "together"))


def test_tmpdir(tmp_path, monkeypatch):
    """A checkpoint that is cut off while it is written leaves the old one whole; nothing is written into TMPDIR."""
    written = WholeCheckpoints()
    last = tmp_path / "checkpoints" / "last.ckpt"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))  # Writing there would fail
    written.save_checkpoint({"step": 1}, last)
    before = last.read_bytes()

    def cut_off(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", cut_off)
    with pytest.raises(KeyboardInterrupt):
        written.save_checkpoint({"step": 2}, last)
    assert last.read_bytes() == before
    assert [each.name for each in last.parent.iterdir()] == ["last.ckpt"]


def test_tmpdir_of_a_fit(evaluated, graspl, monkeypatch):
    """Every fit on one device writes its checkpoints so."""
    seen = []
    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", lambda *_, **__: seen.append(1))
    more = [each for each in evaluated if "default_root_dir" not in each]
    ok(graspl("fit", *more, "--trainer.default_root_dir=other"))
    assert seen
