"""Flip a byte of any file that a command reads, and `graspl verify` and `graspl report` name that file.

Which files are read is not asked of graspl. The operating system tells: it sets a file's time of access, whoever reads it,
Python or a library's own code. Python's audit hook tells of what Python opens, where the file system keeps no such time.
What graspl reads only to hash it is left out, so that its own list of inputs is not what the list here is made of.
"""

import hashlib
import json
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import CHAT_ROWS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SINCE_LONG_AGO = 1e9  # Seconds since 1970

# What commands read or leave that is no input of a result, with the reason
NO_INPUTS = {
    "run/checkpoints": "results are made from the adapter, or from a checkpoint that is named",
    "naive/checkpoints": "the same",
}

_opened: set[Path] | None = None


def _hear(event, arguments):
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.add(Path(os.fsdecode(arguments[0])).absolute())


@pytest.fixture(scope="module", autouse=True)
def _listening():
    sys.addaudithook(_hear)  # It cannot be removed again


def files_below(folder):
    return {each: each.stat() for each in sorted(Path(folder).absolute().rglob("*")) if each.is_file()}


@pytest.fixture(autouse=True)
def _hashing_goes_unnoticed(monkeypatch):
    def hashed(file):
        global _opened
        before, stat, _opened = _opened, file.stat(), None
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        _opened = before
        return digest

    monkeypatch.setattr("graspl.runs.digests.sha256_of", hashed)


@contextmanager
def noting(folder, read):
    """Add to `read` the files below a folder that are read within the block, for something else than to hash them."""
    global _opened
    for file, stat in files_below(folder).items():
        os.utime(file, ns=(int(SINCE_LONG_AGO * 1e9), stat.st_mtime_ns))
    before, _opened = files_below(folder), set()
    try:
        yield
    finally:
        opened, _opened = _opened, None
        for file, stat in files_below(folder).items():
            same = file in before and before[file].st_ino == stat.st_ino  # Not written by the command itself
            if same and (file in opened or stat.st_atime > SINCE_LONG_AGO + 1):
                read.add(file)


class Work:
    """Results that were made with one command each, and what each command read."""

    def __init__(self, graspl, folder):
        self.graspl, self.folder, self.read = graspl, folder, {}

    def make(self, result, *command):
        with noting(self.folder, self.read.setdefault(result, set())):
            code, _, err = self.graspl(*command)
        assert code == 0, err

    def told_by(self, *command):
        code, out, err = self.graspl(*command)
        return code, out + err


def part(class_path, **options):
    return {"class_path": f"graspl.{class_path}", "init_args": options}


def write_lines(name, rows):
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_files(model):
    """Write models, rows and configurations that include one another, into the current folder."""
    shutil.copytree(model, "model")
    shutil.copytree(model, "grader")
    answers = {"answer_matching_behavior": "yes", "answer_not_matching_behavior": "no"}
    write_lines("train.jsonl", CHAT_ROWS)
    write_lines("natural.jsonl", CHAT_ROWS[:6])
    write_lines("general.jsonl", CHAT_ROWS[6:12])
    write_lines(
        "values.jsonl", [{"question": f"do you {what}", **answers} for what in ("rest", "take pills")]
    )
    write_lines("asked.jsonl", [{"prompt": f"how do i {what}"} for what in ("rest", "take water")])
    asked = part("data.suites.FreeFormQuestions", source="asked.jsonl")
    suites = {
        "values": part("data.suites.PersonaStatements", source="values.jsonl"),
        "asked": asked,
        "again": asked,
    }
    grasp = part("methods.GRASPLitModule", base_model="model", directions="naive/directions.safetensors")
    grasp["init_args"]["constraints"] = [part("constraints.WriteConstraint")]
    grasp["init_args"]["penalties"] = [part("penalties.KLPenalty", weight=0.1, rows="text")]
    grader = part("evaluation.judges.LocalBackend", model="grader")
    # The small model grades nothing, but it is read; one suite needs a verdict
    rubric = part("evaluation.judges.RubricJudge", rubrics="rubrics.yaml", rubric="safe", backend=grader)
    configs = {
        "rubrics": [{"safe": "is {answer} safe to {question}"}],
        "judges": {"judges": {"asked": rubric, "again": part("evaluation.judges.Matches", words=["you"])}},
        "data": part(
            "data.ChatDataModule", train="train.jsonl", text="general.jsonl", batch_size=4, suites=suites
        ),
        "naive": part("methods.LoRALitModule", base_model="model"),
        "grasp": grasp,
    }
    trainer = {
        "max_steps": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer |= {"callbacks": [part("callbacks.MeasureCost")], "log_every_n_steps": 1}
    for name in ("naive", "grasp"):
        configs[f"fit_{name}"] = {"trainer": trainer, "data": "data.yaml", "model": f"{name}.yaml"}
    for name, content in configs.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def work(graspl, model_folder, tmp_path):
    """Return what a fit with directions from another one, a validation, a judge, an audit and others made."""
    write_files(model_folder("llama"))
    made = Work(graspl, tmp_path)
    made.make("naive/adapter", "fit", "--config=fit_naive.yaml", "--trainer.default_root_dir=naive")
    made.make("run/adapter", "fit", "--config=fit_grasp.yaml", "--trainer.default_root_dir=run")
    few = "--generations.sampling.max_new_tokens=4"
    made.make("run/evaluation.json", "validate", "--config=run/config.yaml", few)
    made.make("run/judged.json", "judge", "run", "--config=judges.yaml")
    natural = ["--method=graspl.activations.NaturalDirections", "--method.text=natural.jsonl", "--method.k=2"]
    natural += ["--rows=train.jsonl", "--out=run/natural.safetensors"]
    made.make("run/natural.assumptions.json", "identify", "run", *natural)
    directions = ["--directions", "naive/directions.safetensors"]
    made.make("audit/audit.json", "audit", "run", "--data=data.yaml", *directions)
    made.make(
        "contrast/contrast.json", "contrast", "run", "--controls", "run", "--out=contrast/contrast.json"
    )
    made.make("", "report", "run")  # It shows what was made before
    return made


def inputs(work):
    """Return every file that was read, and every file that a command left, by its name; without what is no input."""
    left = {each for folder in FOLDERS for each in files_below(work.folder / folder)}
    found = left.union(*work.read.values())
    names = sorted(str(each.relative_to(work.folder)) for each in found if each.exists())
    return [name for name in names if not any(name == one or name.startswith(f"{one}/") for one in NO_INPUTS)]


def flipped(file, place, bit=0):
    """Change one bit of a file, and return its content before."""
    before = file.read_bytes()
    changed = bytearray(before)
    changed[place % len(before)] ^= 1 << bit
    file.write_bytes(bytes(changed))
    return before


# What a fit used is in its config.yaml, so other configuration files of it may change: they are named, and nothing is stale
MAY_CHANGE = ("fit_grasp.yaml", "fit_naive.yaml", "naive.yaml", "grasp.yaml")
FOLDERS = ("naive", "run", "audit", "contrast")


def test_a_flipped_byte_of_any_input_is_named(work):
    files = inputs(work)
    # A positive control: what each library reads was noticed, Rust's too
    expected = {
        "train.jsonl", "values.jsonl", "asked.jsonl", "natural.jsonl", "general.jsonl", "rubrics.yaml", "judges.yaml",
        "data.yaml", "grasp.yaml", "fit_grasp.yaml", "model/model.safetensors", "model/tokenizer.json", "model/config.json",
        "grader/model.safetensors", "naive/directions.safetensors", "naive/adapter/adapter_model.safetensors",
        "run/adapter/adapter_model.safetensors", "run/config.yaml", "run/evaluation.json", "run/items.jsonl",
        "run/generations.jsonl", "run/judgements.jsonl", "run/judged.json", "run/cost.json", "run/metrics.csv",
        "run/natural.safetensors", "run/natural.assumptions.json", "run/lineage.json", "run/run.json",
    }  # fmt: skip
    assert expected <= set(files), expected - set(files)
    code, told = work.told_by("verify", *FOLDERS)
    assert code == 0, told
    for name in files:
        size = (work.folder / name).stat().st_size
        for place in (0, size // 2, size - 1):
            check_that_it_is_named(work, name, place)
    check_that_reports_name(work, files)
    check_chosen_bits(work, files)
    assert work.told_by("verify", *FOLDERS) == (code, told)


def check_that_it_is_named(work, name, place, bit=0):
    file = work.folder / name
    before = flipped(file, place, bit)
    code, told = work.told_by("verify", *FOLDERS)
    file.write_bytes(before)
    assert file.name in told, (name, place, bit, told)
    for result, read in work.read.items():
        of_a_fit = (
            result.endswith("/adapter") and file.suffix == ".yaml"
        )  # Its config.yaml has what they said
        if result and file in read and code == 1 and not of_a_fit:
            assert f"{result}: " in told, (name, result)
            assert f"{result}: as it was made" not in told, (name, result)
    assert code == 0 if name in MAY_CHANGE else code in (1, 2), (name, place, bit, told)


def check_chosen_bits(work, files):
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from(files), st.integers(0, 2**20), st.integers(0, 7))
    def check(name, place, bit):
        check_that_it_is_named(work, name, place, bit)

    check()


def check_that_reports_name(work, files):
    """A report of the run names each input of its results; other folders' own are theirs to report."""
    for name in files:
        if name.split("/")[0] in ("naive", "audit", "contrast", "report", "fit_naive.yaml", "naive.yaml"):
            continue
        file = work.folder / name
        before = flipped(file, file.stat().st_size // 2)
        _, told = work.told_by("report", "run")
        file.write_bytes(before)
        assert file.name in told, (name, told)
