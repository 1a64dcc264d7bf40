"""What a fit says: a line now and then in a file, one line in a terminal that no message runs into, and a short result."""

import logging
import os
import subprocess
import sys
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from terminal import in_a_terminal, screen

from graspl.callbacks.console import (
    BYTES,
    COUNTS,
    ConsoleProgress,
    ShortSummary,
    parameters,
    rounded,
    with_console,
)
from graspl.quiet import be_quiet
from graspl.reporting.results import MOST_ROWS, Ended, results_table


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def a_trainer(steps, **more):
    given = {
        "estimated_stepping_batches": steps, "global_step": 0, "callback_metrics": {}, "is_global_zero": True,
        "sanity_checking": False, "state": SimpleNamespace(fn="fit"), "num_val_batches": [3],
    }  # fmt: skip
    return SimpleNamespace(**given | more)


def fitted(progress, trainer, clock, steps, seconds):
    """Take steps of so many seconds each."""
    progress.on_train_start(trainer, None)
    for _ in range(steps):
        progress.on_train_batch_start(trainer, None)
        clock.now += seconds
        trainer.global_step += 1
        trainer.callback_metrics["train/loss"] = torch.tensor(1 / trainer.global_step)
        progress.on_train_batch_end(trainer, None)
    progress.on_train_end(trainer, None)


@pytest.fixture
def said(caplog):
    """Return a function that returns what graspl logged so far."""
    caplog.set_level(logging.INFO, "graspl")
    return lambda: [
        each for each in (record.getMessage() for record in caplog.records) if "getting" not in each
    ]


def test_a_file_gets_a_line_at_the_first_step_now_and_then_and_at_the_last(said):
    clock = Clock()
    fitted(ConsoleProgress(clock), a_trainer(1000), clock, 1000, 1.0)
    lines = said()
    assert lines[0] == "fit: step 1/1000  loss 1  0:16:39 left"
    assert lines[1] == "fit: step 6/1000  loss 0.1667  0:16:34 left"
    assert lines[-1] == "fit: step 1000/1000  loss 0.001  0:00:00 left"
    assert 20 < len(lines) < 100


def test_a_long_fit_writes_a_line_every_few_minutes(said):
    clock = Clock()
    fitted(ConsoleProgress(clock), a_trainer(10_000), clock, 10_000, 10.0)
    assert 300 < len(said()) < 450  # 28 hours


def test_without_an_end_there_is_no_time_left(said):
    clock = Clock()
    fitted(ConsoleProgress(clock), a_trainer(float("inf")), clock, 3, 10.0)
    assert said() == ["fit: step 1  loss 1", "fit: step 2  loss 0.5", "fit: step 3  loss 0.3333"]


def test_a_resumed_fit_counts_its_own_pace(said):
    clock = Clock()
    fitted(ConsoleProgress(clock), a_trainer(100, global_step=90), clock, 10, 2.0)
    assert said()[0] == "fit: step 91/100  loss 0.01099  0:00:18 left"


def test_what_comes_before_the_first_step_belongs_to_no_step(said):
    clock = Clock()
    progress, trainer = ConsoleProgress(clock), a_trainer(10)
    progress.on_train_start(trainer, None)
    clock.now += 1000  # A throw-away fit
    progress.on_train_batch_start(trainer, None)
    clock.now, trainer.global_step = clock.now + 2, 1
    progress.on_train_batch_end(trainer, None)
    assert said() == ["fit: step 1/10  0:00:18 left"]


def test_accumulated_batches_are_one_step(said):
    progress, trainer = ConsoleProgress(Clock()), a_trainer(10)
    progress.on_train_start(trainer, None)
    for _ in range(3):
        progress.on_train_batch_end(trainer, None)
    assert said() == []


def test_headline_figures_are_said_after_validations_but_not_after_each_of_many(said):
    clock = Clock()
    progress, trainer = ConsoleProgress(clock), a_trainer(10)
    progress.on_train_start(trainer, None)
    trainer.callback_metrics = {"val/adherence": 0.5, "val/kl": 0.25, "val/task/nll": 3.0}
    for step, seconds in ((2, 0), (3, 1), (4, 10), (10, 11)):
        trainer.global_step, clock.now = step, seconds
        progress.on_validation_start(trainer, None)
        progress.on_validation_end(trainer, None)
    told = "adherence 0.500, kl 0.250"
    assert said() == [f"step {step}/10: {told}" for step in (2, 4, 10)]
    trainer.sanity_checking = True
    progress.on_validation_end(trainer, None)
    assert len(said()) == 3


def test_a_file_shows_that_a_fit_gets_ready_and_that_a_long_validation_goes_on(caplog):
    caplog.set_level(logging.INFO, "graspl")
    clock = Clock()
    progress, trainer = ConsoleProgress(clock), a_trainer(10)
    progress.on_validation_batch_end(trainer, None)  # Of the check before the first step
    progress.on_train_start(trainer, None)
    progress.on_train_batch_start(trainer, None)
    trainer.global_step = 4
    progress.on_validation_start(trainer, None)
    for _ in range(20):
        clock.now += 1
        progress.on_validation_batch_end(trainer, None)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["fit: step 0/10  getting ready", *["fit: step 4/10  validating"] * 4]


def test_a_validation_counts_batches(said):
    progress, trainer = ConsoleProgress(Clock()), a_trainer(0, state=SimpleNamespace(fn="validate"))
    progress.on_validation_start(trainer, None)
    for _ in range(3):
        progress.on_validation_batch_end(trainer, None)
    progress.on_validation_end(trainer, None)
    assert said() == ["validate: batch 1/3", "validate: batch 3/3"]


def test_other_processes_say_nothing(said):
    clock = Clock()
    progress = ConsoleProgress(clock)
    progress.disable()
    fitted(progress, a_trainer(3), clock, 3, 10.0)
    assert said() == []


def options(**given):
    off = {
        "callbacks": None,
        "enable_progress_bar": None,
        "enable_model_summary": None,
        "barebones": False,
    }
    return SimpleNamespace(**off | given)


def test_the_console_gives_way_to_one_that_is_named():
    from lightning.pytorch.callbacks import ModelSummary, RichProgressBar

    assert [type(each) for each in with_console(options())] == [ConsoleProgress, ShortSummary]
    assert with_console(options(enable_progress_bar=False, enable_model_summary=False)) == []
    named = [RichProgressBar(), ModelSummary()]
    assert with_console(options(callbacks=named)) == named
    assert [type(each) for each in with_console(options(callbacks=named[0]))] == [
        RichProgressBar,
        ShortSummary,
    ]


def test_parameters_are_counted_with_their_memory():
    module = torch.nn.Linear(3, 2)
    module.weight.requires_grad_(False)
    assert parameters(module) == (2, 6, 32)
    assert [rounded(size, BYTES) for size in (12, 1500, 7.6123e9)] == ["12 bytes", "1.5 kB", "7.61 GB"]
    assert [rounded(count, COUNTS) for count in (0, 12, 29_696, 7.6e9)] == ["0", "12", "29.7 k", "7.6 B"]


def shown(table):
    console = Console(width=80, record=True, file=StringIO())
    console.print(table)
    return console.export_text()


METRICS = {
    "val/adherence": 0.5, "val/task/token_accuracy": 0.5, "val/spillover": 0.123456789, "val/unrelated/harmful": 0.12,
    "val/coherence": 0.9, "val/kl": 1e-5, "val/rho_mean": 0.1, "val/rho_max": 0.2, "val/update_norm": 7.0,
}  # fmt: skip


def test_results_are_at_most_eight_rows_of_three_digits():
    text = shown(results_table(METRICS, Ended(60, 75.2, 3.3231, 2 * 10**9)))
    assert len(text.splitlines()) == MOST_ROWS + 1
    assert max(map(len, text.splitlines())) <= 80
    for part in (
        "60",
        "0:01:15",
        "2.00 GB",
        "3.323",
        "token_accuracy of suite task",
        "0.123",
        "harmful of suite",
    ):
        assert part in text
    assert "1.0e-05" in text


def test_what_was_not_measured_is_said_and_other_modules_show_their_own():
    text = shown(results_table({"val/adherence": 0.5, "val/task/token_accuracy": 0.5}))
    assert "not measured: give data.unrelated" in text
    assert shown(results_table({f"val_{number}": 1.0 for number in range(20)})).count("1.000") == MOST_ROWS
    assert results_table({}) is None


def test_banners_are_left_out_and_messages_are_not(capsys):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    parent = logging.getLogger("lightning.pytorch")
    before = parent.handlers, parent.propagate, parent.level
    try:
        be_quiet()
        parent.setLevel(logging.INFO)
        for message in (
            "GPU available: True",
            "\U0001f4a1 Tip: buy",
            "`Trainer.fit` stopped: `max_steps=3` reached.",
        ):
            logger.info(message)
        logger.info("Time limit reached.")
    finally:
        parent.handlers, parent.propagate, parent.level = before
    assert capsys.readouterr().err == "Time limit reached.\n"


def test_a_terminal_of_80_columns_shows_every_line_whole(chat_options, tmp_path):
    steps = {"trainer.max_steps": 30, "trainer.val_check_interval": 4}
    chosen = [each for each in chat_options(**steps) if "enable_" not in each]
    code, written = in_a_terminal([sys.executable, "-m", "graspl", "fit", *chosen], tmp_path)
    assert code == 0, written
    lines, states = screen(written)
    assert max(len(line.rstrip()) for line in [*lines, *states] if "base_model" not in line) <= 80
    assert any("step 30/30" in each and "loss" in each and "left" in each for each in states)
    for start in (
        "model: ",
        "adapter: run/adapter",
        "directions: run/",
        " figure ",
        " steps ",
        " adherence ",
        "next: ",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    assert not any("GPU available" in line or "Tip" in line or "Seed set" in line for line in lines)
    # Nothing is left of the line itself, and no message stands beside it
    assert not any("left" in line or "loading" in line for line in lines)


def test_a_file_gets_every_line_and_no_banner(chat_options, tmp_path):
    chosen = [each for each in chat_options() if "enable_" not in each]
    done = subprocess.run(
        [sys.executable, "-m", "graspl", "fit", *chosen], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *rest = done.stderr.splitlines()
    assert first.startswith("graspl ")
    assert [line.partition(":")[0] for line in rest] == [
        "model",
        "fit",
        "fit",
        "fit",
        "adapter",
        "directions",
    ]
    assert "\x1b" not in done.stderr + done.stdout
    assert len(done.stdout.splitlines()) <= MOST_ROWS + 3
