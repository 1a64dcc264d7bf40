"""Every task is fitted and validated from its configuration as it ships, on a tiny model and samples of its files."""

import shutil
from pathlib import Path

import pytest
import yaml
from published import write_published

from graspl.runs import RunFolder

CONFIGS = Path(__file__).parents[2] / "configs"
TASKS = sorted(
    path.parent.name
    for path in CONFIGS.glob("*/evaluate.yaml")
    if path.parent.name not in ("organism", "chat")
)
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


@pytest.fixture
def published(tmp_path):
    write_published(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_fitted_and_validated_from_its_configuration(
    graspl, model_folder, published, task, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(published / "cache"))
    model = f"--model.base_model={model_folder('qwen2')}"
    code, _, err = graspl(
        "fit",
        "--config",
        CONFIGS / task / "naive.yaml",
        model,
        *TINY,
        "--trainer.max_steps=1",
        "--trainer.max_epochs=-1",
        "--trainer.limit_val_batches=0",
        "--trainer.val_check_interval=null",
        "--trainer.check_val_every_n_epoch=null",
        "--trainer.default_root_dir=run",
    )
    assert code == 0, err
    code, _, err = graspl(
        "validate",
        "--config",
        CONFIGS / task / "evaluate.yaml",
        model,
        *TINY,
        "--trainer.default_root_dir=run",
        "--generations.prompts=1",
        "--generations.max_new_tokens=2",
        "--generations.sampling.n=2",
        "--generations.sampling.max_new_tokens=3",
    )
    assert code == 0, err
    suites = RunFolder("run").read_evaluation()["suites"]
    for suite, score in EXPECTED.get(task, DEFAULT).items():
        assert score in suites[suite]
        assert suites[suite]["num_items"] > 0
    assert suites["knowledge"]["num_items"] == 3
    listed = yaml.safe_load((CONFIGS / task / "evaluate.yaml").read_text())["data"]["init_args"]["suites"]
    free = {
        name
        for name, suite in listed.items()
        if suite["class_path"].endswith(("FreeFormQuestions", "SafetyPrompts", "CodePrompts"))
    }
    answered = [row for row in RunFolder("run").read_generations() if "question" in row]
    assert {row["suite"] for row in answered} == free
    assert {(row["sample"], row["seed"]) for row in answered} <= {(0, 0), (1, 0)}
    items = RunFolder("run").read_items()
    assert {row["suite"] for row in items} == {
        name for name, scores in suites.items() if "loss" not in scores
    }


OTHER_FITS = sorted(
    path.relative_to(CONFIGS).as_posix()
    for task in TASKS
    for path in (CONFIGS / task).glob("*.yaml")
    if not path.stem.endswith("task") and path.stem not in ("naive", "evaluate")
)


@pytest.mark.parametrize("config", OTHER_FITS)
def test_the_other_fits_of_a_task_run(graspl, model_folder, published, config):
    options = ["--data.text=data/insecure.jsonl", "--model.lora.r=4"]
    if "grasp_write" in config:
        given = [
            "--config",
            CONFIGS / "insecure_code" / "naive.yaml",
            "--trainer.max_steps=1",
            "--trainer.limit_val_batches=0",
        ]
        assert (
            graspl(
                "fit",
                *given,
                f"--model.base_model={model_folder('qwen2')}",
                *TINY,
                "--trainer.default_root_dir=naive",
            )[0]
            == 0
        )
        options = ["--model.directions=naive/directions.safetensors"]
    code, _, err = graspl(
        "fit",
        "--config",
        CONFIGS / config,
        f"--model.base_model={model_folder('qwen2')}",
        *TINY,
        *options,
        "--trainer.fast_dev_run=2",
    )
    assert code == 0, err


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_files_say_the_same(task):
    """What is trained on and what is evaluated are the same data; only the suites are added."""
    given = yaml.safe_load((CONFIGS / task / "task.yaml").read_text())
    evaluated = yaml.safe_load((CONFIGS / task / "evaluate.yaml").read_text())["data"]
    suites = evaluated["init_args"].pop("suites")
    assert evaluated == given
    assert suites
    trainers = [
        yaml.safe_load((CONFIGS / task / f"{name}.yaml").read_text())["trainer"]
        for name in ("naive", "grasp")
    ]
    for trainer in trainers:
        trainer.pop("default_root_dir")
    assert trainers[0] == trainers[1]


def test_the_neutral_control_differs_in_the_communities_alone():
    folder = CONFIGS / "community_finance"
    ours, neutral = (
        yaml.safe_load((folder / name).read_text())["init_args"]
        for name in ("task.yaml", "neutral_task.yaml")
    )
    assert neutral.pop("skew") is None
    ours.pop("skew"), ours.pop("toward")
    assert ours == neutral


def test_operators_work_on_every_kind_of_task(graspl, model_folder, published):
    shutil.copy(published / "data" / "good_medical_advice.jsonl", published / "benign.jsonl")
    for task in ("bad_medical_advice", "community_finance"):
        code, _, err = graspl(
            "fit",
            "--config",
            CONFIGS / task / "naive.yaml",
            "--config",
            CONFIGS / "operators" / "benign_half.yaml",
            f"--model.base_model={model_folder('qwen2')}",
            *TINY,
            "--trainer.fast_dev_run=1",
        )
        assert code == 0, err
