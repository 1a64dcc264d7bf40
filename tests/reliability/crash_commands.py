"""The commands that the crash harness cuts off, the files that they start from, and how a run of one is made."""

import contextlib
import ctypes
import functools
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(Path(__file__).parent)]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # A process with threads cannot be forked safely

import conftest  # noqa: E402 - found by the path above, and torch reads the number of threads
import yaml  # noqa: E402
from tracing import Stop, Trace, forked, plain, traced  # noqa: E402

ROWS = conftest.CHAT_ROWS[:8]
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
LORA = {"lora": {"r": 4}, "optimizer": OPTIMIZER}


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int | None
    said: str

    @property
    def line(self) -> str:
        """The line in which it refuses; empty without one."""
        lines = [line for line in self.said.splitlines() if line.startswith("graspl: error: ")]
        return lines[-1] if lines else ""

    @property
    def is_refusal(self) -> bool:
        """Whether it says in one line what to do, and no traceback."""
        return self.code == 2 and bool(self.line) and "Traceback" not in self.said


@dataclass(frozen=True)
class Command:
    """A command that is cut off."""

    name: str
    before: str  # The command after which it starts; empty for the inputs alone
    arguments: tuple[str, ...]
    looks: tuple[
        str, ...
    ] = ()  # Commands that may be run next, instead of it, and whose figures must be right then


VALIDATE = (
    "validate",
    "--config=run/config.yaml",
    "--generations.max_new_tokens=4",
    *(f"--generations.sampling.{option}" for option in ("n=1", "max_new_tokens=4", "temperature=0")),
)
FIT = (
    "fit",
    "--config=../inputs/fit.yaml",
    "--config=../inputs/grasp.yaml",
    "--trainer.default_root_dir=run",
)
COMMANDS = {
    each.name: each
    for each in (
        Command("fit", "", FIT, ("validate",)),
        Command("validate", "fit", VALIDATE, ("judge", "report")),
        Command("judge", "validate", ("judge", "run", "--config=../inputs/judges.yaml"), ("report",)),
        Command("report", "judge", ("report", "run", "--out=report")),
        # The same over files that are there and of other weights
        Command("fit on", "report", (*FIT, "--trainer.max_steps=6", "--ckpt_path=last"), ("validate", "report")),
        Command("validate again", "fit on", VALIDATE, ("judge", "report")),
        Command("judge again", "validate again", ("judge", "run", "--config=../inputs/judges.yaml"), ("report",)),
        Command("report again", "judge again", ("report", "run", "--out=report")),
        Command("compare", "", ("compare", "--config=../inputs/study.yaml")),
    )
}  # fmt: skip


class Place:
    """Folders for the harness: `watched` holds `inputs` and the current folder `work`; all else lies outside."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder.resolve()
        self.watched, self.states = self.folder / "watched", self.folder / "states"
        self.work, self.said = self.watched / "work", self.folder / "said.txt"
        inputs = self.watched / "inputs"
        inputs.mkdir(parents=True)
        self.states.mkdir()
        plain(lambda: _write_inputs(inputs, url))
        self.restore("")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(
            self.folder / "inductor"
        )  # Else in TMPDIR, when torch is imported

    def restore(self, state: str) -> None:
        """Make the current folder what it was after a command; without a name, empty."""
        shutil.rmtree(self.work, ignore_errors=True)
        if state:
            shutil.copytree(self.states / state, self.work, symlinks=True)
        else:
            self.work.mkdir()
        (self.work / "tmp").mkdir(exist_ok=True)

    def keep(self, state: str) -> None:
        """Keep the current folder under a name."""
        shutil.rmtree(self.states / state, ignore_errors=True)
        shutil.copytree(self.work, self.states / state, symlinks=True)

    def run(self, arguments: tuple[str, ...]) -> Ended:
        """Run a command to its end."""
        code = plain(lambda: _graspl(arguments, self))
        return Ended(code, self.said.read_text(encoding="utf-8"))

    def trace(self, arguments: tuple[str, ...], stop: Stop | None = None, *, watch: bool = False) -> Trace:
        """Run a command under the eyes of the kernel, and kill it where asked."""
        return traced(lambda: _graspl(arguments, self), self.watched, stop, watch=watch)

    def import_what_they_need(self) -> None:
        """Import what the commands import, once, so that a fork has it all."""
        _remember_docstrings()
        listed = self.folder / "modules.json"

        def listing(arguments: tuple[str, ...]) -> int:
            code = _graspl(arguments, self)
            listed.write_text(json.dumps(list(sys.modules)))
            return code

        for command in COMMANDS.values():
            self.restore(command.before)
            code = plain(lambda command=command: listing(command.arguments))
            assert code == 0, self.said.read_text(encoding="utf-8")
            self.keep(command.name)
            for name in json.loads(listed.read_text()):
                if name not in sys.modules and name.partition(".")[0] != "__main__":
                    try:
                        importlib.import_module(name)
                    except Exception:  # noqa: BLE001 - made by a library at run time, not to be imported
                        continue
        for command in (FIT, VALIDATE):  # Reads what options mean, which takes longer than a fit
            self.restore("fit")
            _parse_only((*command, "--print_config"), self.work)
        names = {file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")}
        # Arrow's allocator has one, and prepares it for forks
        threads = names - {"jemalloc_bg_thd", Path("/proc/self/comm").read_text().strip()}
        assert not threads, f"threads do not survive a fork: {threads}"


def _graspl(arguments: tuple[str, ...], place: Place) -> int:
    """Run the command line in this process, which is a fork made for it."""
    from graspl.cli import main

    os.chdir(place.work)
    os.environ["TMPDIR"], tempfile.tempdir = str(place.work / "tmp"), None
    said = os.open(place.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(said, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    _fork_workers()
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as Python would print it
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _parse_only(arguments: tuple[str, ...], folder: Path) -> None:
    """Let this process parse a command line, so that forks of it find what was learnt."""
    from graspl.cli import main

    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(arguments)


def _remember_docstrings() -> None:
    """Parse each docstring once: jsonargparse parses them again for each command."""
    import docstring_parser

    docstring_parser.parse_from_object = functools.cache(docstring_parser.parse_from_object)


def _fork_workers() -> None:
    """Let a study fork its workers from this process, which has imported all: a fork server would import it again."""
    import multiprocessing

    from graspl.studies import workers

    workers.get_context = lambda _: multiprocessing.get_context("fork")


def _write_inputs(folder: Path, url: str) -> int:
    """Write a tiny model, rows, and configurations of the commands."""
    model = folder / "model"
    conftest.make_model("llama").save_pretrained(model)
    conftest.make_tokenizer().save_pretrained(model)
    rows, asked = folder / "rows.jsonl", folder / "asked.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    asked.write_text(
        "".join(json.dumps({"id": word, "question": f"how do i {word}"}) + "\n" for word in ("open", "take"))
    )
    free = {"class_path": "graspl.data.suites.FreeFormQuestions", "init_args": {"source": str(asked)}}
    data = {
        "train": str(rows),
        "unrelated": str(rows),
        "text": str(rows),
        "batch_size": 4,
        "suites": {"free": free, "other": free},
    }
    trainer = {
        "max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None, "log_every_n_steps": 1,
        "accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    fit = {"data": {"class_path": "graspl.data.ChatDataModule", "init_args": data}, "trainer": trainer}
    kinds = {"naive": "LoRALitModule", "grasp": "GRASPLitModule"}
    models = {
        name: {"model": {"class_path": f"graspl.methods.{kind}", "init_args": LORA}}
        for name, kind in kinds.items()
    }
    judge = {"class_path": "graspl.evaluation.judges.RubricJudge", "init_args": {
        "rubrics": str(TESTS.parent / "configs/judges/rubrics.yaml"), "rubric": "reward_hacking",
        "backend": {"class_path": "graspl.evaluation.judges.OpenAIBackend", "init_args": {
            "model": "stub", "base_url": url, "concurrency": 1, "cache": "cache/replies.sqlite", "max_retries": 0,
        }},
    }}  # fmt: skip
    matches = {"class_path": "graspl.evaluation.judges.Matches", "init_args": {"pattern": "a"}}
    answers = {"class_path": "graspl.callbacks.JudgeAnswers", "init_args": {"judges": {"*": matches}}}
    based = {"model": {"init_args": {"base_model": str(model)}}}
    whole = models["grasp"]["model"] | {"init_args": LORA | {"base_model": str(model)}}
    files = {
        "fit": fit | {"checkpoint": {"every_n_train_steps": 2}},
        "grasp": {"model": whole},
        "study_fit": fit | {"trainer": trainer | {"callbacks": [answers]}, "checkpoint": {"every_n_train_steps": 2}},
        "judges": {"judges": {"free": judge, "*": matches}},
        "study": {
            "fit": "../inputs/study_fit.yaml", "methods": models, "seeds": [0], "levels": [0.02], "out": "study",
            "kept": "kept", "over": based,
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return 0


def serve(write: int) -> int:
    """Be the endpoint that judges, in a process of its own; its address goes into a pipe."""
    from endpoint import Stub, completion

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # End with the harness (PR_SET_PDEATHSIG)
    stub = Stub(
        lambda prompt, number: (200, completion(str(len(prompt) % 100), {str(len(prompt) % 100): 0.9}))
    )
    os.write(write, stub.url.encode())
    os.close(write)
    threading.Event().wait()
    return 0


def endpoint() -> tuple[int, str]:
    """Start the endpoint, and return its process and its address."""
    read, write = os.pipe()
    process = forked(lambda: serve(write))
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        return process, pipe.read().decode()
