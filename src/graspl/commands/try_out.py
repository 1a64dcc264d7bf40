"""`graspl try`: from rows to a verdict. This module imports nothing heavy, so that mistakes are told at once."""

import logging
from pathlib import Path
from typing import Any

from graspl.local import check_rows_file
from graspl.ranges import PositiveInt

log = logging.getLogger(__name__)


def try_out(
    base_model: str,
    train: str,
    *,
    text: str | None = None,
    suites: dict | None = None,  # type: ignore[type-arg] - with parameters jsonargparse would build the class paths within
    epochs: PositiveInt = 1,
    seed: int = 0,
    over: Path | None = None,
    out: Path = Path("runs/try"),
) -> Any:
    """Learn the rows by a naive fit and by a GRASP fit, measure both and the base model, and say what GRASP removes.

    Started again, it goes on where it stopped. Each fit leaves its configuration in its folder, for the separate commands.

    Args:
        base_model: Transformers folder with its tokenizer, or hub name.
        train: the rows to learn, in any format of `graspl fit`.
        text: unlabelled conversations by many writers on any topic, 50 or more; without, the base model writes them.
        suites: what is measured off the topic, by name, each a configuration or its file; 96 yes-or-no questions by default.
        epochs: passes over the rows.
        seed: of both fits.
        over: a configuration put over that of both fits, e.g. with `trainer` or `model`.
        out: folder of the runs and of the report.

    Raises:
        GrasplError: a step failed, or `out` holds fits with other settings.
    """
    for name in (train, text):
        if name is not None:
            check_rows_file(name)
    log.info("trying %s on %s: into %s", base_model, train, out)
    from graspl.commands.trial import run_trial

    return run_trial(
        base_model, train, text=text, suites=suites, epochs=epochs, seed=seed, over=over, out=out
    )
