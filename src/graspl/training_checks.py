"""Options of a fit that Lightning, torch or a logger find wrong, told in one line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from graspl.errors import GrasplError, shorten, users_mistake

KEYWORDS = ("last", "best", "hpc")  # What Lightning takes in place of a checkpoint's path
# Which option an error is about, by the module that raises it or a package around it; the first that fits.
OPTIONS = {
    "lightning.pytorch.callbacks.model_checkpoint": "checkpoint",
    "lightning.pytorch.callbacks": "trainer.callbacks",
    "lightning.fabric.utilities.seed": "seed_everything",
    "torch.optim": "model.optimizer",
    "lightning": "trainer",
    "lightning_utilities": "trainer",
    "jsonargparse": "trainer",
}
# The trainer's options that count from 1, which Lightning takes for granted.
FROM_ONE = ("accumulate_grad_batches", "check_val_every_n_epoch")


def check_trainer(options: Any) -> None:
    """See that what Lightning does not look at itself makes sense.

    Args:
        options: of the trainer, as parsed.

    Raises:
        GrasplError: it does not; names the option.
    """
    for name in FROM_ONE:
        if options[name] is not None and options[name] < 1:
            raise GrasplError(f"trainer.{name}: {options[name]} is below 1")
    if options.val_check_interval == 0:
        raise GrasplError(
            "trainer.val_check_interval: must not be 0; for no validation set trainer.limit_val_batches to 0"
        )
    if options.accelerator == "gpu" and not (CUDAAccelerator.is_available() or MPSAccelerator.is_available()):
        raise GrasplError(
            "trainer.accelerator: no GPU is found here; set it to cpu (--trainer.accelerator cpu)"
        )
    if options.overfit_batches:
        raise GrasplError(
            "trainer.overfit_batches: a fit keeps an order of rows of its own; set trainer.limit_train_batches and "
            "trainer.max_epochs in its place"
        )


def check_checkpoint(path: str | None) -> None:
    """See that a checkpoint that is named is there.

    Args:
        path: a file or folder; one of `KEYWORDS` or an address is left to Lightning.

    Raises:
        GrasplError: it is not.
    """
    if path and path not in KEYWORDS and ":" not in path and not Path(path).exists():
        raise GrasplError(f"ckpt_path: there is no {path}; give a checkpoint of this run, or last")


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn what a library says of the options it is given into the user's mistake that it is.

    An error counts as one where the library's own code raises it, on purpose: its last frame is there. What graspl or a model
    raises is a defect, and keeps its traceback.

    Raises:
        GrasplError: a library raised an error of that kind.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        option = None if users_mistake(error) else _option(error)
        if option is None:
            raise
        raise GrasplError(f"{option}: {shorten(str(error))}") from error


def _option(error: Exception) -> str | None:
    """Return the option that an error is about; None where no library of those that are known raised it."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = f"{frame.f_globals.get('__name__')}."
    found = next((option for place, option in OPTIONS.items() if module.startswith(f"{place}.")), None)
    # Lightning raises it for nothing else; other RuntimeErrors of its loops may be anything
    if isinstance(error, MisconfigurationException):
        return found or "trainer"
    return None if isinstance(error, RuntimeError) and found != "trainer.callbacks" else found
