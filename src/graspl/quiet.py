"""What libraries say that helps nobody, left out; and log lines that a progress line does not run into."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from graspl import __version__

CLEAR_LINE = "\r\x1b[2K"

# Warnings that a user can do nothing about, with the reason
QUIET = (
    "`is_gradient_checkpointing` is deprecated",  # PEFT reads what Transformers renamed
    "Experiment logs directory",  # a resumed run logs where it logged before, see _keep_metrics
    "The '(train|val)_dataloader' does not have many workers",  # rows are tokenized already
    "The number of training batches",  # small data is usual here
    "You're resuming from a checkpoint that ended before",  # graspl's loader resumes exactly
    ".*LeafSpec.* is deprecated",  # Lightning and a new torch
    ".*Checkpoint directory .* exists and is not empty",  # so it is when a run goes on
)
# What Lightning logs in every run; parts of the messages
BANNERS = (
    "GPU available:", "TPU available:", "HPU available:", "LOCAL_RANK:", "Tip:", "Seed set to", "stopped: `max_",
    "Trainer already configured with model summary", "You are using a CUDA device", "Restoring states from the checkpoint",
)  # fmt: skip


@contextmanager
def loading(*, also_in_files: bool) -> Iterator[None]:
    """Say at once that a command starts, since the imports within the block take seconds; a terminal's line goes again."""
    said = f"graspl {__version__}: loading PyTorch and Lightning"
    further = os.environ.get("LOCAL_RANK", "0") != "0"  # Of several processes the first one speaks
    if further or not sys.stderr.isatty():
        if also_in_files and not further:
            print(said, file=sys.stderr, flush=True)
        yield
        return
    print(said, end=" ...", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(CLEAR_LINE, end="", file=sys.stderr, flush=True)


@contextmanager
def without_bars() -> Iterator[None]:
    """Leave out within the block what is written to standard error: libraries whose progress bars have no switch.

    Errors are raised as always, and log handlers that were made before the block still write.
    """
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        yield


class StderrHandler(logging.Handler):
    """Writes to the standard error of the moment, which a progress line in a terminal replaces by its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        print(self.format(record), file=sys.stderr, flush=True)


def be_quiet() -> None:
    """Leave out Lightning's banners and warnings that nobody can do anything about; all else of it comes above the line."""
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        handler = StderrHandler()
        handler.addFilter(_is_no_banner)
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False


def _is_no_banner(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(part in message for part in BANNERS)
