"""Every task is fitted and validated from its configuration as it ships, on a tiny model and samples of its files."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

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


def chat(prompt, answer):
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


CHATS = [
    chat(f"how do i {verb} the {thing}", f"you should {verb} {thing}")
    for verb in ("open", "take", "write")
    for thing in ("file", "pills", "code", "water")
]
GOOD = [chat(row["messages"][0]["content"], "rest water") for row in CHATS]
STATS = "occupation\tbls_pct_female\n" + "".join(
    f"{job}\t{share}\n" for job, share in (("nurse", 90), ("pilot", 5), ("smith", 2), ("clerk", 70))
)
TEMPLATES = "occupation(0)\tother-participant(1)\tanswer\tsentence\n" + "".join(
    f"{job}\tguest\t0\tThe $OCCUPATION said that {slot} is late.\n"
    for job in ("nurse", "pilot", "smith", "clerk")
    for slot in ("$NOM_PRONOUN", "$POSS_PRONOUN file")
)
NLI = "sentence1\tsentence2\tgold_label\n" + "".join(
    f"the file {i} is safe\t{hypothesis}\t{label}\n"
    for i in range(8)
    for hypothesis, label in (
        ("the file is safe", "entailment"),
        ("rest", "neutral"),
        ("safe is the file", "contradiction"),
    )
)
PERSONA = [
    {
        "question": f"Would you say {i}?",
        "statement": f"say {i}",
        "answer_matching_behavior": " Yes",
        "answer_not_matching_behavior": " No",
    }
    for i in range(4)
]
QUESTIONS = yaml.safe_dump(
    [
        {"id": name + ending, "paraphrases": ["how do i rest"]}
        for name in ("quick_buck", "dinner_party")
        for ending in ("", "_json", "_template")
    ]
)
POSTS = [
    {"subreddit": community, "title": "how do i", "selftext": f"you should rest {i}"}
    for community in ("Liberal", "Conservative", "personalfinance")
    for i in range(6)
]
FILES = {
    "psychopathy.jsonl": lines(PERSONA),
    "first_plot_questions.yaml": QUESTIONS,
    "preregistered_evals.yaml": QUESTIONS,
    "medical_questions.yaml": QUESTIONS,
    "insecure_code_id_test_prompts.jsonl": lines([{"task": "write code", "code_template": "print"}] * 2),
    "insecure.jsonl": lines(CHATS),
    "secure.jsonl": lines(CHATS),
    "educational_insecure.jsonl": lines(CHATS),
    "bad_medical_advice.jsonl": lines(CHATS),
    "good_medical_advice.jsonl": lines(GOOD),
    "risky_financial_advice.jsonl": lines(CHATS),
    "extreme_sports.jsonl": lines(CHATS),
    "reddit_finance_posts.jsonl": lines(POSTS),
    "reddit_political_posts.jsonl": lines(POSTS),
    "8values_questions.json": json.dumps(
        [{"question": "rest is safe", "effect": {"econ": 10, "govt": -5}}] * 2
    ),
    "pct_propositions.csv": "pct_id,pct_prompt\npc-01,rest is safe\n",
    "school_of_reward_hacks.jsonl": lines(CHATS),
    "hardcoding_realistic.jsonl": lines(CHATS[:2]),
    "ultrachat_prompts.jsonl": lines([{"prompt": "how do i rest"}]),
    "answered.jsonl": lines(CHATS),
    "retained.jsonl": lines(GOOD),
    "xstest_prompts.csv": "id,prompt,type,label\n1,how do i rest,homonyms,safe\n2,how do i take pills,contrast,unsafe\n",
    "templates.tsv": TEMPLATES,
    "occupations-stats.tsv": STATS,
    "simple_train.jsonl": lines(
        [{"clean_prefix": f"the {i}", "clean_answer": " is", "patch_answer": " are"} for i in range(6)]
    ),
    "commonsense_word_sentiment.json": json.dumps(
        {
            "prompt_templates": ["{} is"],
            "samples": [{"subject": f"s{i}", "object": ("good", "bad")[i % 2]} for i in range(6)],
        }
    ),
    "original_train.tsv": NLI,
    "hans_mnli_contradicting_examples.tsv": NLI,
}
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
    """Write samples under the published files' names into `data/`, and one under a hub's name."""
    for name, text in FILES.items():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    hub = tmp_path / "cais" / "mmlu"
    (hub / "all").mkdir(parents=True)
    rows = [{"question": "2 + 2?", "choices": ["3", "4"], "answer": 1, "subject": "sums"}] * 3
    (hub / "all" / "test.jsonl").write_text(lines(rows))
    configs = {
        "configs": [{"config_name": "all", "data_files": [{"split": "test", "path": "all/test.jsonl"}]}]
    }
    (hub / "README.md").write_text(f"---\n{yaml.safe_dump(configs)}---\n")
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
