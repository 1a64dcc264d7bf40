"""`graspl demo`: the whole loop on a small model that comes with graspl. This module imports nothing heavy."""

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def demo(*, seed: int = 0, over: Path | None = None, out: Path = Path("runs/demo")) -> Any:
    """Run the whole loop on the organism, a small model that comes with graspl: no model, rows or GPU are needed.

    A naive fit, a check of its directions, a GRASP fit, what each of them and the base model do, and a report. It takes
    about three minutes on two cores. Started again, it goes on where it stopped.

    Args:
        seed: of both fits.
        over: a configuration put over that of both fits, e.g. with `trainer`.
        out: folder of the runs and of the report.

    Raises:
        GrasplError: a step failed, or `out` holds fits with other settings.
    """
    log.info("the loop on the organism: into %s", out)
    from graspl.commands.demonstration import run_demo

    return run_demo(seed=seed, over=over, out=out)
