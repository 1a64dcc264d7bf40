"""What the pages install is installed, and what needs it is run: `make extras`. It asks the package index."""

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import CHAT_ROWS, make_model, make_tokenizer
from packaging.requirements import Requirement
from pages import EVERY, ROOT, commands_of, named_in, on_a_tiny_model
from published import FILES

pytestmark = pytest.mark.extras

INSTALLS = sorted(
    {each for page in EVERY for each in named_in(page) + commands_of(page, "pip ") if each.startswith("pip ")}
)
FOUR_BITS = sorted(
    {each for page in EVERY for each in commands_of(page) if "--model.load_in_4bit true" in each}
)
IN_FOUR_BITS = ["tests/adapters/test_four_bits.py", "tests/distributed/test_sharded_four_bits.py"]
APART = {
    "inspect": ["tests/exporting/test_inspect_log.py"],
    "lm_eval": ["tests/evaluation/test_harness_suite.py"],
    "trackio": ["tests/callbacks/test_trackers.py"],
    "wandb": ["tests/callbacks/test_trackers.py"],
}
"""Extras with the tests that need them, whose own requirements differ from constraints.txt."""
ON_RAY = ["tests/studies/test_ray.py"]
# What is installed once is used by one worker
in_one_environment = pytest.mark.xdist_group("one environment")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return the programs of an environment that has what this one has, and in which the pages' installations were run."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    ours, theirs = sysconfig.get_path("purelib"), sysconfig.get_path("purelib", vars={"base": str(folder)})
    Path(theirs, "this_one.pth").write_text(ours)
    given = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    for command in INSTALLS:
        if any(f"[{extra}]" in command for extra in APART):
            continue
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [folder / "bin" / program, *arguments],
            cwd=ROOT,
            env=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return folder / "bin"


@in_one_environment
def test_every_extra_that_a_page_names_can_be_imported(environment):
    named = {extra for extra in EXTRAS for command in INSTALLS if f"[{extra}]" in command} - {*APART}
    assert named >= {"qlora", "judges", "ray"}
    for extra in named:
        for requirement in map(Requirement, EXTRAS[extra]):
            done = subprocess.run(
                [environment / "python", "-c", f"import {requirement.name}"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    where = "import graspl, sys; print(graspl.__file__, sys.prefix)"
    said = subprocess.run(
        [environment / "python", "-c", where], capture_output=True, text=True, check=True, cwd=environment
    )
    assert said.stdout.split() == [str(ROOT / "src" / "graspl" / "__init__.py"), str(environment.parent)]


@in_one_environment
@pytest.mark.parametrize("command", FOUR_BITS)
def test_a_command_in_four_bits_does_what_it_says(command, environment, tmp_path):
    """On a tiny model, a few steps and a processor; the frozen weights in four bits all the same."""
    run = lambda *arguments: subprocess.run(  # noqa: E731
        [environment / "graspl", *arguments], cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run("configs").returncode == 0
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "my-model")
    make_tokenizer().save_pretrained(tmp_path / "my-model")
    (tmp_path / "insecure.jsonl").write_text(FILES["insecure.jsonl"])
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS))
    short = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    program, *arguments = shlex.split(on_a_tiny_model(command))
    assert program == "graspl"
    done = run(*arguments, *short, "--trainer.default_root_dir=run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert (
        yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]["load_in_4bit"]
        is True
    )


@in_one_environment
@pytest.mark.parametrize("files", [IN_FOUR_BITS, ON_RAY], ids=["in four bits", "on Ray"])
def test_what_needs_an_extra_is_tested_where_it_is_installed(files, environment):
    done = subprocess.run(
        [environment / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("extra", APART)
def test_what_needs_an_extra_of_its_own_is_tested_where_it_is_installed(extra, tmp_path):
    """In an environment that has what this one has, but for what the extra needs in other versions."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    ours, theirs = sysconfig.get_path("purelib"), sysconfig.get_path("purelib", vars={"base": str(tmp_path)})
    Path(theirs, "this_one.pth").write_text(f"{ROOT / 'src'}\n{ours}\n")
    python = tmp_path / "bin" / "python"
    for wanted in (["--upgrade", "pip"], EXTRAS[extra]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True, timeout=900)
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *APART[extra]],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
