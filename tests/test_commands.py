"""The commands of README, tutorial and how-tos are run as they stand, in their order, on a tiny model and a few rows.

Only what takes long is made short (steps, answers), and published models and files are replaced by tiny ones.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import CHAT_ROWS

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/tutorial.md", "docs/howto/own_data.md", "docs/howto/audit.md", "docs/howto/trainers.md",
         "docs/howto/one_gpu.md", "docs/howto/fsdp.md", "docs/howto/own_judge.md"]  # fmt: skip
MODELS = ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-32B-Instruct", "my-model", "/models/Qwen2.5-32B")
SHORT = {
    "fit": [
        "--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ],
    "validate": [
        "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu", "--generations.sampling.max_new_tokens=4",
        "--generations.prompts=1",
    ],
}  # fmt: skip
ELSEWHERE = {
    # published files
    "configs/insecure_code/evaluate.yaml": "tests/cli/test_tasks.py",
    "configs/bad_medical_advice": "tests/cli/test_tasks.py",
    # an endpoint
    "configs/judges/openai.yaml": "tests/evaluation/test_openai_backend.py",
    "runs/insecure_code/grasp": "tests/cli/test_judging.py",
    # several processes, a GPU
    "configs/trainer/fsdp.yaml": "tests/distributed/test_two_processes.py",
    "configs/trainer/qlora.yaml": "tests/cli/test_configs.py",
    # hours
    "graspl compare --config configs/organism/compare.yaml": "tests/studies/test_compare.py",
    "graspl compare --config configs/organism/rivals.yaml": "tests/studies/test_compare.py",
    "graspl compare --config configs/chat/rivals.yaml": "tests/studies/test_tuning.py",
    # a package that is an extra
    "TensorBoardLogger": "tests/cli/test_configs.py::test_the_documents_commands_are_accepted",
}
"""What needs what is not there in this test, and a test of the same command on other files, or of its options alone."""


def commands_of(text):
    """Return the graspl commands in a page's shell blocks, continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("graspl ")]


@pytest.fixture
def place(graspl, model_folder, tmp_path):
    """Return a folder as a reader of the pages would have it: configurations, rows, text, a model."""
    assert graspl("configs")[0] == 0
    for name in ("train", "text", "insecure", "held_out", "benign"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    for name in ("my-model", "Qwen2.5-7B-Instruct"):
        shutil.copytree(model_folder("llama"), tmp_path / name)
    return tmp_path


def shortened(command):
    """Return a command's arguments with published models replaced, and what takes long made short."""
    for name in MODELS:
        command = command.replace(name, "my-model")
    arguments = shlex.split(re.sub(r"--generations.sampling.n \d+", "--generations.sampling.n 1", command))[
        1:
    ]
    return arguments + SHORT.get(arguments[0], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != "docs/howto/own_judge.md"]
)  # all elsewhere
def test_the_commands_of_a_page_do_what_they_say(
    page,
    place,
    graspl,
):
    prepare(page, place, graspl)
    ran = 0
    for command in commands_of((ROOT / page).read_text()):
        if any(part in command for part in ELSEWHERE):
            continue
        code, _, err = graspl(*shortened(command))
        assert code in ((0, 1) if command.startswith("graspl audit") else (0,)), f"{command}\n{err}"
        ran += 1
    assert ran


def prepare(page, place, graspl):
    """Make what a how-to takes for granted: a naive fit, a library of directions."""
    if page in ("README.md", "docs/tutorial.md"):
        return
    common = ["--model.base_model=my-model", "--data.train=train.jsonl", *SHORT["fit"]]
    assert (
        graspl(
            "fit",
            "--config",
            "configs/chat/naive.yaml",
            "--trainer.default_root_dir=runs/chat/naive",
            *common,
        )[0]
        == 0
    )
    assert graspl("fit", "--config", "configs/organism/naive.yaml", *SHORT["fit"])[0] == 0
    shutil.copytree(place / "runs" / "chat" / "naive", place / "runs" / "chat" / "grasp")
    shutil.copytree(place / "runs" / "chat" / "naive" / "adapter", place / "my-naive-adapter")
    (place / "library").mkdir()
    shutil.copy(place / "runs" / "chat" / "naive" / "directions.safetensors", place / "library")
    if page == "docs/howto/own_data.md":
        shutil.move(place / "runs" / "chat", place / "kept")
        shutil.copytree(place / "kept" / "naive", place / "elsewhere")


def test_what_is_run_elsewhere_is_run_there():
    for part, where in ELSEWHERE.items():
        assert (ROOT / where.partition("::")[0]).exists(), (part, where)
        test = where.partition("::")[2]
        assert not test or test in (ROOT / where.partition("::")[0]).read_text(), (part, where)
    every = [command for page in PAGES for command in commands_of((ROOT / page).read_text())]
    for part in ELSEWHERE:
        assert any(part in command for command in every), f"{part} is in no page any more"
