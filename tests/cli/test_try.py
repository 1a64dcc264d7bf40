"""`graspl try`: one command from rows to a verdict, on a tiny model."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
from conftest import CHAT_ROWS
from terminal import in_a_terminal, screen

from graspl.commands.trial import _foreseen

OVER = """\
model: {init_args: {lora: {r: 4}}}
trainer: {accelerator: cpu, max_steps: 3, val_check_interval: 1, accumulate_grad_batches: 1, check_val_every_n_epoch: null}
data: {init_args: {max_length: 64}}
"""


@pytest.fixture
def tried(graspl, model_folder, write_rows, tmp_path):
    """Return a function that runs `graspl try` with a small configuration."""
    rows, text = write_rows(CHAT_ROWS), write_rows(CHAT_ROWS[::-1] * 2, "text.jsonl")
    (tmp_path / "over.yaml").write_text(OVER)

    def run(*more, columns=None):
        command = [
            "try",
            str(model_folder("llama")),
            str(rows),
            "--text",
            str(text),
            "--over",
            "over.yaml",
            *more,
        ]
        if columns is None:
            return graspl(*command)
        return in_a_terminal([sys.executable, "-m", "graspl", *command], tmp_path, columns)

    return run


STEPS = [
    "measure base", "naive, seed 0", "measure naive", "grasp, seed 0", "measure grasp", "check the directions",
]  # fmt: skip
ENDS = (
    "Spill-over removed: ",
    "Foreseen before training: ",
    "Trust in the directions: ",
    "report: ",
    "Next: ",
)


def shown_at_any_width(tried):
    """Run everything in a terminal, look at it again in others and in a file; return what the file got."""
    shown = {}
    for columns in (80, 100, 120):  # The first one runs everything, the others find it done
        code, written = tried("--out", "out", columns=columns)
        assert code == 0, written
        lines, states = screen(written)
        shown[columns] = [line.rstrip() for line in lines if line.strip()]
        told = [re.findall(r"\] (.*): done in", line) for line in lines]
        assert [name for each in told for name in each] == (STEPS if columns == 80 else STEPS[-1:])
        below = next(place for place, line in enumerate(lines) if line.startswith("base"))
        assert max(len(line) for line in lines[below - 1 : below + 3]) <= columns
        if columns == 80:  # Each step's own last line beside its name, and nothing that is no text
            assert any("measure base" in each for each in states)
            assert all(each.isprintable() for each in states)
    code, out, err = tried("--out", "out")
    assert code == 0, err
    assert "\x1b" not in out + err
    shown["file"] = [line.rstrip() for line in out.splitlines()]
    for where, lines in shown.items():
        for start in ENDS:
            assert sum(line.startswith(start) for line in lines) == 1, (where, start)
        words = {word for line in lines for word in line.split()}
        assert {"run", "adherence", "coherence", "kl", "0.90", "0.95", "base", "naive", "grasp"} <= words, (
            where
        )
    return out


@pytest.mark.slow
def test_from_rows_to_a_verdict_and_nothing_twice(tried, tmp_path):
    out = shown_at_any_width(tried)
    folder = tmp_path / "out"
    assert (folder / "report.html").is_file()
    # A random model gives hardly any of the answers to choose from, so a share removed would say nothing
    assert "Spill-over removed: cannot be told." in out
    # The figures are those of the separate commands' files
    for run in ("base", "naive", "grasp"):
        assert run in out
        assert json.loads((folder / run / "evaluation.json").read_text())["suites"]["unrelated"]
    assert json.loads((folder / "base" / "evaluation.json").read_text())["adapter"] is None
    config = (folder / "grasp" / "config.yaml").read_text()
    assert "graspl.methods.GRASPLitModule" in config
    assert "max_length: 64" in config

    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/evaluation.json")}
    (folder / "naive" / "evaluation.json").unlink()
    code, again, err = tried("--out", "out")
    assert code == 0, err
    assert [name for _, name in re.findall(r"\[(\d)/6\] (.*): done in", err)] == [
        "measure naive",
        "check the directions",
    ]
    assert again == out
    del kept[folder / "naive" / "evaluation.json"]
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())

    code, _, err = tried("--out", "out", "--seed", "1")
    assert code == 2
    assert "holds a fit with another configuration" in err
    assert len(err.splitlines()[-1]) < 250


def test_a_missing_file_is_told_before_anything_is_written(graspl, tmp_path):
    code, _, err = graspl("try", "model", "train.jsonl")
    assert code == 2
    assert err.startswith("graspl: error: train.jsonl: cannot be read (No such file")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_step_that_fails_is_named(tried, tmp_path):
    (tmp_path / "over.yaml").write_text(OVER.replace("max_length: 64", "max_length: 2"))
    code, _, err = tried("--out", "out")
    assert code == 2
    assert "graspl: error: measure base: " in err.splitlines()[-1]
    assert "max_length" in err.splitlines()[-1]


def test_what_a_trial_before_training_foresaw_comes_before_what_the_response_did(tmp_path):
    kept = {"text": {"before training": {"outlook": "in doubt"}}}
    shown = []
    for more in ({}, {"trial": {"kept": {"text": 0.31, "own_text": 0.42}, "outlook": "likely to hold"}}):
        (tmp_path / "null_space.json").write_text(json.dumps(kept | more))
        shown.append(_foreseen(SimpleNamespace(grasp=tmp_path)))
    assert shown[0] == "Foreseen before training: the null space is in doubt (text)."
    assert "is likely to hold: a short trial kept 31% of a naive fit's side effect on text" in shown[1]
