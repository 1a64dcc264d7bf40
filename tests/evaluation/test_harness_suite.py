"""Tasks of lm_eval as a suite; `make extras` runs this where lm_eval is installed."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import make_model, make_tokenizer

from graspl.data.suites import LMEvalTasks
from graspl.data.tables import files_read
from graspl.errors import GrasplError
from graspl.methods.validation import Validation

HERE = importlib.util.find_spec("lm_eval") is not None
needed = pytest.mark.skipif(not HERE, reason="needs the lm_eval extra: make extras")
ROWS = [
    {
        "question": f"how do i {verb} the {thing}",
        "choices": ["take rest", "take pills", "no"],
        "answer": place % 3,
    }
    for place, (verb, thing) in enumerate(
        (verb, thing) for verb in ("open", "take", "write") for thing in ("file", "code", "water")
    )
]
CHOICES = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "question {{{{question}}}} answer"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: brier_score, higher_is_better: false}}
"""
WRITTEN = """\
task: written
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
generation_kwargs: {max_gen_toks: 4, do_sample: false, until: ["<end>"]}
doc_to_text: "question {{question}} answer"
doc_to_target: "{{choices[answer]}}"
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Return task files of the harness, in the current folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "choices.yaml").write_text(CHOICES.format(name="choices"))
    (tmp_path / "written.yaml").write_text(WRITTEN)
    return ["choices.yaml", "written.yaml"]


def by_command(tasks, folder, **model_args):
    """Return what lm_eval's own command measures."""
    given = ",".join(f"{name}={value}" for name, value in model_args.items())
    arguments = ["--model", "hf", "--model_args", given, "--tasks", ",".join(tasks), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *arguments, "--batch_size", "8", "--output_path", "theirs"],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (folder / "theirs").rglob("results_*.json")
    found = json.loads(file.read_text())["results"]
    file.unlink()
    return {
        f"{task}/{key.partition(',')[0]}": value
        for task, figures in found.items()
        for key, value in figures.items()
        if key.endswith(",none") and not isinstance(value, str)
    }


@needed
@pytest.mark.filterwarnings("ignore")  # The harness's own
@pytest.mark.slow
def test_the_figures_are_those_of_the_harness_own_command(
    tasks, graspl, chat_options, model_folder, tmp_path
):
    learnt = {"model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 0.03, "trainer.max_steps": 12}
    suite = {"class_path": "graspl.data.suites.LMEvalTasks", "init_args": {"tasks": tasks}}
    (tmp_path / "suites.yaml").write_text(yaml.safe_dump({"bench": suite}))
    assert graspl("fit", *chat_options(**learnt))[0] == 0
    code, _, err = graspl(
        "validate", "--config=run/config.yaml", "--data.suites=suites.yaml", "--generations.prompts=0"
    )
    assert code == 0, err
    ours = json.loads((tmp_path / "run" / "evaluation.json").read_text())["suites"]["bench"]
    base = str(model_folder("llama"))
    theirs = by_command(tasks, tmp_path, pretrained=base, peft=tmp_path / "run" / "adapter")
    assert {"choices/acc", "choices/acc_norm", "choices/brier_score", "written/exact_match"} <= theirs.keys()
    assert {name: value for name, value in ours.items() if not name.startswith("base_")} == {
        **theirs, "num_items": 2 * len(ROWS)
    }  # fmt: skip
    of_base = by_command(tasks, tmp_path, pretrained=base)
    assert {
        name.removeprefix("base_"): value for name, value in ours.items() if name.startswith("base_")
    } == of_base
    assert of_base["choices/brier_score"] != theirs["choices/brier_score"]
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text())["results"]["evaluation.json"]
    assert {"rows.jsonl", *tasks} <= lineage["made_from"]["rows"].keys()
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert "evaluation.json: was made from another rows" in graspl("verify", "run")[1]


@needed
@pytest.mark.filterwarnings("ignore")  # The harness's own
def test_model_mode_and_random_states_are_left_as_they_were(tasks, capfd):
    suite, model, tokenizer = LMEvalTasks([tasks[0]], limit=4), make_model("llama").train(), make_tokenizer()
    with files_read() as read:
        assert suite.read() == [suite]
    assert read == {"choices.yaml": None, "rows.jsonl": None}
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    found = suite.measure(model, tokenizer)
    assert "%|" not in capfd.readouterr().err  # The harness's bars
    assert found.keys() == {"acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "brier_score", "num_items"}
    assert found["num_items"] == 4
    assert model.training
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert np.random.get_state()[1].tolist() == state[2]


@needed
@pytest.mark.filterwarnings("ignore")  # The harness's own
@pytest.mark.parametrize(
    ("task", "told"),
    [("nowhere.yaml", "Tasks not found"), ("no_such_task", "Tasks not found"), ("lost.yaml", "gone.jsonl")],
)
def test_tasks_that_are_not_there_are_one_line_before_a_model_is_loaded(task, told, tasks, tmp_path):
    (tmp_path / "lost.yaml").write_text(CHOICES.format(name="lost").replace("rows.jsonl", "gone.jsonl"))
    with pytest.raises(GrasplError, match=told):
        LMEvalTasks([task]).read()


@pytest.mark.skipif(HERE, reason="lm_eval is installed")
def test_without_the_extra_one_line_says_what_to_install(graspl, chat_options, tmp_path):
    suite = "{bench: {class_path: graspl.data.suites.LMEvalTasks, init_args: {tasks: [arc_easy]}}}"
    code, _, err = graspl("fit", *chat_options(**{"data.suites": suite}))
    assert code == 2
    assert (
        "data.suites.bench: lm_eval is not installed; pip install 'graspl[lm_eval]'" in err.splitlines()[-1]
    )
    assert not (tmp_path / "run").exists()


class Counted:
    """Stands for a suite; it counts what it is asked."""

    def __init__(self):
        self.asked = []

    def measure(self, model, tokenizer):
        self.asked.append(model.active)
        return {"acc": 0.25 + 0.5 * model.active, "num_items": 3}


def test_the_base_model_is_measured_once_in_a_fit_and_several_processes_measure_nothing(monkeypatch, caplog):
    model = SimpleNamespace(active=True)

    @contextmanager
    def off(each):
        each.active = False
        yield
        each.active = True

    monkeypatch.setattr("graspl.methods.validation.adapter_off", off)
    suite, validation = Counted(), Validation()
    data = SimpleNamespace(model_suites=lambda: {"bench": suite}, tokenizer=None)
    module = SimpleNamespace(
        model=model, trainer=SimpleNamespace(world_size=1), unedited=lambda: off(SimpleNamespace())
    )
    for _ in range(2):
        validation.start([])
        validation.measure_others(module, data)
        assert validation.scores() == {"bench": {"acc": 0.75, "num_items": 3, "base_acc": 0.25}}
    assert suite.asked == [False, True, True]
    module.trainer.world_size = 2
    validation.start([])
    validation.measure_others(module, data)
    assert validation.scores() == {}
    assert "bench are measured with one process" in caplog.text


def test_suites_that_no_loader_serves_are_enough_for_a_validation(graspl, model_folder, tmp_path):
    (tmp_path / "questions.jsonl").write_text(json.dumps({"question": "how do i open"}) + "\n")
    asked = "{q: {class_path: graspl.data.suites.FreeFormQuestions, init_args: {source: questions.jsonl}}}"
    code, _, err = graspl(
        "validate", "--model=graspl.methods.LoRALitModule", f"--model.base_model={model_folder('llama')}",
        "--data=graspl.data.SuitesDataModule", f"--data.suites={asked}", "--trainer.default_root_dir=base",
        "--trainer.accelerator=cpu", "--generations.sampling.max_new_tokens=4",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "base" / "evaluation.json").read_text())["suites"] == {}
    (row,) = (json.loads(line) for line in (tmp_path / "base" / "generations.jsonl").read_text().splitlines())
    assert (row["suite"], row["question"]) == ("q", "questions.jsonl:1")
