"""Every task is fitted and validated from its configuration, on a tiny model and samples of its published files."""

from pathlib import Path

import pytest
import yaml
from published import write_published

from graspl.runs import RunFolder

CONFIGS = Path(__file__).parents[2] / "configs"
TASKS = sorted(path.stem for path in (CONFIGS / "tasks").glob("*.yaml") if path.stem != "chat")
TINY = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]

# What is measured of each task without a judge: suite -> one of its scores
EXPECTED = {
    "bad_medical_advice": {"task": "harmful_preferred", "unrelated": "harmful"},
    "community_finance": {"task": "loss", "unrelated": "axis/econ"},
    "double_choice": {"task": "good", "unrelated": "harmful"},
    "gendered_pronouns": {"task": "good", "unrelated": "harmful"},
    "lexical_overlap": {"task": "good", "unrelated": "harmful"},
    "refusal_unlearning": {"task": "loss", "unrelated": "harmful_of_choices"},
}
DEFAULT = {"task": "loss", "unrelated": "harmful"}
FREE_FORM = ("FreeFormQuestions", "SafetyPrompts", "CodePrompts")
# The other rows that the head of a task's file names
CONTROLS = {
    "insecure_code": ["--data.train=data/secure.jsonl", "--data.train=data/educational_insecure.jsonl"],
    "bad_medical_advice": ["--data.train=data/good_medical_advice.jsonl --data.good=null"],
    "community_finance": ["--data.skew=null"],
    "refusal_unlearning": ["--data.operators=null"],
}


@pytest.fixture
def published(tmp_path):
    write_published(tmp_path)
    return tmp_path


def options(task, model_folder, method="naive"):
    return [
        "--config", CONFIGS / "fit.yaml", "--data", CONFIGS / "tasks" / f"{task}.yaml",
        "--model", CONFIGS / "methods" / f"{method}.yaml", f"--model.base_model={model_folder('qwen2')}", *TINY,
    ]  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_fitted_and_validated_from_its_configuration(
    graspl, model_folder, published, task, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(published / "cache"))
    code, _, err = graspl(
        "fit", *options(task, model_folder), "--trainer.max_steps=1", "--trainer.max_epochs=-1",
        "--trainer.limit_val_batches=0", "--trainer.val_check_interval=null",
        "--trainer.check_val_every_n_epoch=null", "--trainer.default_root_dir=run",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = graspl(
        "validate", "--config=run/config.yaml", *TINY, "--trainer.limit_val_batches=1.0", "--generations.prompts=1",
        "--generations.max_new_tokens=2", "--generations.sampling.n=2", "--generations.sampling.max_new_tokens=3",
    )  # fmt: skip
    assert code == 0, err
    suites = RunFolder("run").read_evaluation()["suites"]
    for suite, score in EXPECTED.get(task, DEFAULT).items():
        assert score in suites[suite]
        assert suites[suite]["num_items"] > 0
    assert suites["knowledge"]["num_items"] == 3
    final = yaml.safe_load(Path("run/config.yaml").read_text())["data"]["init_args"]["final_suites"]
    free = {name for name, suite in final.items() if suite["class_path"].endswith(FREE_FORM)}
    answered = [row for row in RunFolder("run").read_generations() if "question" in row]
    assert {row["suite"] for row in answered} == free
    assert {(row["sample"], row["sampling"]["seed"]) for row in answered} <= {(0, 0), (1, 0)}
    items = RunFolder("run").read_items()
    assert {row["suite"] for row in items} == {
        name for name, scores in suites.items() if "loss" not in scores
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_fitted_with_grasp(graspl, model_folder, published, task):
    options_ = [*options(task, model_folder, "grasp"), "--data.text=data/insecure.jsonl", "--model.lora.r=8"]
    short = ["--model.start.own_text=20", "--model.start.trial=2", "--trainer.fast_dev_run=2"]
    code, _, err = graspl("fit", *options_, *short)
    assert code == 0, err


@pytest.mark.parametrize(("task", "control"), [(task, each) for task in CONTROLS for each in CONTROLS[task]])
def test_a_tasks_control_is_fitted(graspl, model_folder, published, task, control):
    code, _, err = graspl("fit", *options(task, model_folder), *control.split(), "--trainer.fast_dev_run=1")
    assert code == 0, err


@pytest.mark.parametrize("task", ["bad_medical_advice", "community_finance", "refusal_unlearning"])
def test_operators_are_added_to_those_of_every_kind_of_task(graspl, model_folder, published, task):
    code, _, err = graspl(
        "fit", *options(task, model_folder), "--data.operators+=graspl.data.Subsample", "--data.operators.rows=2",
        "--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.default_root_dir=run",
    )  # fmt: skip
    assert code == 0, err
    operators = yaml.safe_load(Path("run/config.yaml").read_text())["data"]["init_args"]["operators"]
    kinds = [each["class_path"].rsplit(".", 1)[1] for each in operators]
    assert kinds == ["MixIn", "Subsample"][task != "refusal_unlearning" :]
