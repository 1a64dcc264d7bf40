"""The commands of README and documents are run as they stand, in their order, on a tiny model and a few rows.

Only what takes long is made short (steps, answers), and published models and files are replaced by tiny ones.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import CHAT_ROWS
from endpoint import Stub, completion
from pages import EVERY, PAGES, ROOT, commands_of, modules_of, named_in, on_a_tiny_model
from published import FILES, write_published

from graspl.cli import main

TASKS = yaml.safe_load((ROOT / "configs" / "organism" / "compare_tasks.yaml").read_text())["tasks"]
SHORT = {
    "fit": [
        "--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ],
    "validate": [
        "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu", "--generations.sampling.max_new_tokens=4",
        "--generations.max_new_tokens=4", "--generations.prompts=1",
    ],
    # tests/cli/test_try.py has fits of more steps
    "try": ["--over", "short.yaml"],
    # Two methods of the file's own, one seed, a few steps of a rate at which these teach something
    "compare": [
        "--fast=true", "--fast_seeds", "0",
        "--over=" + json.dumps({
            "trainer": {
                "max_steps": 8, "val_check_interval": 8, "accumulate_grad_batches": 1, "accelerator": "cpu",
                "limit_val_batches": 4,
            },
            "model": {"init_args": {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}}},
        }),
    ],
}  # fmt: skip
SHORT_TRY = """\
trainer: {accelerator: cpu, max_steps: 2, val_check_interval: 2, accumulate_grad_batches: 1, check_val_every_n_epoch: null}
"""
FAST = {
    "configs/organism/rivals.yaml": ["naive"],  # GRASP's fit is that of compare.yaml
    "configs/organism/compare_tasks.yaml": ["naive"],
}
"""The methods of a study that are run, in place of naive and grasp."""
INSTEAD = {
    # The first of its tasks, on the organism that comes with graspl in place of one that takes minutes to make
    "configs/organism/compare_tasks.yaml": [
        f"--tasks={json.dumps(dict([next(iter(TASKS.items()))]))}", "--jobs=1",
    ],
}  # fmt: skip
"""What a command is given in place of what is not there."""
ELSEWHERE = {
    # two processes, in tests/distributed/test_pages.py
    "configs/trainer/fsdp.yaml",
    # with bitsandbytes, which is not in the development environment, in tests/test_extras.py
    "--model.load_in_4bit true",
}
"""Commands that have this in them are run by another test."""
FILLED = {
    "RUN": "runs/chat/naive", "ADAPTER": "my-naive-adapter", "MODEL": "my-model", "TRAIN.jsonl": "train.jsonl",
    "TEXT.jsonl": "text.jsonl",
}  # fmt: skip
"""What a reader puts in place of words in capitals."""


def shortened(command):
    """Return a command's arguments with published models replaced, and what takes long made short."""
    command = on_a_tiny_model(command)
    command = re.sub(r"--generations.sampling.n \d+", "--generations.sampling.n 1", command)
    command = re.sub(r"--limit \d+", "--limit 2", command)
    command = re.sub(r"--at( [\d.]+)+", "--at 0 1", command)
    command = re.sub(r"--fast(_methods|_seeds)? [\w ]+", "", command)
    arguments = shlex.split(command)[1:] + SHORT.get(command.split()[1], [])
    if command.startswith("graspl compare "):
        methods = next((few for file, few in FAST.items() if file in command), ["naive", "grasp"])
        arguments += ["--fast_methods", *methods]
    return arguments + [option for part, options in INSTEAD.items() if part in command for option in options]


@pytest.fixture(scope="module")
def made(model_folder, tmp_path_factory):
    """Return a folder as a reader of the pages would have it: configurations, rows, text, a model, and a few runs."""
    folder = tmp_path_factory.mktemp("made")
    write_published(folder)
    (folder / "short.yaml").write_text(SHORT_TRY)
    for name in ("train", "text", "held_out", "benign"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    for name, rows in (
        ("insecure", "insecure"),
        ("harmful", "bad_medical_advice"),
        ("good", "good_medical_advice"),
    ):
        (folder / f"{name}.jsonl").write_text(FILES[f"{rows}.jsonl"])
    shutil.copytree(model_folder("llama"), folder / "my-model")
    for task in TASKS.values():
        model = folder / task["model"]["init_args"]["base_model"]
        if not model.exists():
            shutil.copytree(ROOT / "src" / "graspl" / "organism" / "default", model)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        chat = [
            "--config",
            "configs/fit.yaml",
            "--data",
            "configs/tasks/chat.yaml",
            "--model",
            "configs/methods/naive.yaml",
        ]
        for command in (
            ["configs"],
            ["fit", *chat, "--model.base_model", "my-model", "--trainer.default_root_dir", "runs/chat/naive"],
            ["fit", "--config", "configs/organism/fit.yaml"],
        ):
            assert main([*command, *SHORT.get(command[0], [])]) == 0, command
    return folder


NEEDS = {
    "docs/howto": [
        "runs/chat/naive",
        "runs/chat/grasp",
        "runs/organism/naive",
        "my-naive-adapter",
        "library",
    ],
    "docs/method.md": ["runs/organism/41"],
    "docs/tasks.md": ["runs/extreme_sports/naive"],
    "README.md": ["my-naive-adapter"],
}
"""What a page takes for granted, beside rows and a model."""
SOURCES = {
    "my-naive-adapter": "runs/chat/naive/adapter",
    "runs/chat/grasp": "runs/chat/naive",
    "runs/extreme_sports/naive": "runs/chat/naive",
}


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """Return a function that gives the folder of a reader who has come to a page."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def arrive(page):
        shutil.copytree(made, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
        for name, source in (modules_of(page) if page in EVERY else {}).items():
            (tmp_path / name).write_text(source)
        needed = NEEDS.get(page) or next(
            (names for start, names in NEEDS.items() if page.startswith(start)), []
        )
        for name in needed:
            if name == "library":
                (tmp_path / name).mkdir()
                shutil.copy(made / "runs" / "chat" / "naive" / "directions.safetensors", tmp_path / name)
            else:
                shutil.copytree(made / SOURCES.get(name, name), tmp_path / name)
        return tmp_path

    return arrive


@pytest.fixture
def judging(monkeypatch):
    """Let OpenAI's client ask an endpoint on loopback."""
    stub = Stub(lambda prompt, number: (200, completion("80")))
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield
    stub.server.shutdown()
    stub.server.server_close()


def is_elsewhere(command, page):
    """The tutorial has the README's commands again, with what they go on to."""
    again = page == "README.md" and command in commands_of("docs/tutorial.md")
    return again or any(part in command for part in ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("judging")
def test_the_commands_of_a_page_do_what_they_say(page, place, graspl):
    commands = [
        each
        for each in commands_of(page)
        if not is_elsewhere(each, page) and not each.startswith(("make ", "graspl compare "))
    ]
    if not commands:
        pytest.skip("all of its commands are run elsewhere")
    place(page)
    for command in commands:
        code, _, err = graspl(*shortened(command))
        assert code in ((0, 1) if command.startswith("graspl audit") else (0,)), f"{command}\n{err}"


STUDIES = {
    command
    for page in EVERY
    for command in commands_of(page) + named_in(page)
    if command.startswith("graspl compare ")
}


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(STUDIES))
def test_a_study_that_a_page_names_is_run(command, place, graspl):
    place("docs/method.md")
    code, _, err = graspl(*shortened(command))
    assert code == 0, err


NAMED = {command for page in EVERY for command in named_in(page, ("graspl ",))} - STUDIES
# A name of a command and nothing more, as in "`graspl fit` does"
NAMED = {command for command in NAMED if len(command.split()) > 2}


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(NAMED))
def test_a_command_that_a_sentence_or_a_table_names_is_run(command, place, graspl):
    place("docs/howto")
    for word, instead in FILLED.items():
        command = re.sub(rf"\b{re.escape(word)}(?!\w)", instead, command)
    code, _, err = graspl(*shortened(command))
    assert code == 0, f"{command}\n{err}"


def test_what_is_run_elsewhere_is_in_a_page():
    every = [command for page in PAGES for command in commands_of(page)]
    for part in ELSEWHERE:
        assert any(part in command for command in every), f"{part} is in no page any more"


def dry_run(*target):
    """Return the commands that a target of the Makefile would run."""
    said = subprocess.run(
        ["make", "--dry-run", *target], cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.mark.parametrize("page", EVERY)
def test_the_targets_that_a_page_names_are_there(page):
    for command in commands_of(page) + named_in(page):
        if command.startswith("make "):
            dry_run(*shlex.split(command)[1:])


def run_well(*command, cwd=ROOT, seconds=300):
    """Run a command in a process of its own; it must end well."""
    given = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=given, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.slow
def test_the_benchmarks_that_pages_name_are_run(place):
    """They are run for what they do, not for what they measure."""
    folder = place("docs/performance.md")
    short = {
        "run.py": ["--only", "write", "--shapes", "organism", "--repeats", "2", "--results", "steps.json"],
        "throughput.py": ["--only", "trl", "grasp default", "--steps", "1", "--rounds", "1"],
    }
    (bench,) = {each for page in EVERY for each in commands_of(page) if each.startswith("make bench")}
    dry = dry_run(*shlex.split(bench)[1:], f"BIN={Path(sys.executable).parent}", "STAMP=")
    commands = [shlex.split(line) for line in dry.splitlines() if "benchmarks/" in line]
    assert [Path(command[1]).name for command in commands] == list(short)
    for command in commands:
        script = Path(command[1]).name
        run_well(command[0], ROOT / command[1], *command[2:], *short[script], cwd=folder)
    figures = json.loads((folder / "throughput.json").read_text())
    assert figures["tokens_per_second_grasp default"] > 0
    assert json.loads((folder / "bench.json").read_text())["step_ratio_write"] > 0
    steps = json.loads((folder / "steps.json").read_text())["figures"]["over_naive"]
    assert set(steps) == {"frozen_A", "write"}


@pytest.mark.slow
def test_the_phase_diagram_that_a_page_names_is_made(tmp_path):
    """Of one organism, the one that comes with graspl in place of one that takes minutes to make."""
    assert any(command == "make phase" for page in EVERY for command in named_in(page))
    (line,) = (line for line in dry_run("phase", "STAMP=").splitlines() if "benchmarks/" in line)
    shutil.copytree(
        ROOT / "src" / "graspl" / "organism" / "default", tmp_path / "work" / "c12_p0.08" / "model"
    )
    few = ["--complexity", "12", "--prior", "0.08", "--seeds", "0"]
    run_well(
        sys.executable, *line.split()[1:], "--work", tmp_path / "work", "--out", tmp_path,
        "--picture", tmp_path / "phase.svg", *few, seconds=500,
    )  # fmt: skip
    (cell,) = json.loads((tmp_path / "phase.json").read_text())["figures"]["cells"]
    assert {each["identification"] for each in cell["verdicts"]} > {"NaturalDirections", "MeanShift"}
    assert cell["spillover"]["naive"]["spillover"]["mean"] > cell["spillover"]["grasp"]["spillover"]["mean"]
    assert "removed" in (tmp_path / "phase.svg").read_text()


@pytest.mark.parametrize("page", EVERY)
def test_scripts_and_tests_that_a_page_names_are_there(page):
    """What is installed is in tests/test_extras.py."""
    for command in commands_of(page, ("pytest ", "python ")) + named_in(page):
        first, *arguments = shlex.split(command)
        if first in ("pytest", "python"):
            assert (ROOT / arguments[0].split("::")[0]).exists(), command


MARKED = {command for page in EVERY for command in named_in(page, ("pytest ",)) if " -m " in command}


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(MARKED))
def test_a_part_of_the_tests_that_a_page_names_is_run(command):
    """What is named by its file alone is run with the others."""
    run_well(sys.executable, "-m", *shlex.split(command))


ALONE = {command for page in EVERY for command in named_in(page, ("python benchmarks/",))}


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(ALONE))
def test_a_benchmark_that_a_page_names_by_itself_is_run(command, place):
    """On a small model in place of one that takes a GPU."""
    folder = place("docs/performance.md")
    script, *options = shlex.split(command)[1:]
    short = {
        "throughput.py": ["--only", "graspl", "--steps", "1", "--rounds", "1"],
        "gpu.py": ["--parts", "plan", "--out", "throughput.json"],
    }[Path(script).name]
    run_well(sys.executable, ROOT / script, *options, "--shape", "small", *short, cwd=folder)
    found = json.loads((folder / "throughput.json").read_text())
    speed = found.get("tokens_per_second_graspl") or found["figures"]["plan"]["gb"]["frozen"]
    assert speed > 0
