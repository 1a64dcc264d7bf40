"""Files that a fit leaves: the adapter, and the directions found in it."""

import logging

from lightning import Callback, LightningModule, Trainer

from graspl.directions.from_weights import Identification, TopSingular
from graspl.directions.identify import identify_adapter
from graspl.methods.base import AdapterLitModule
from graspl.methods.grasp import GRASPLitModule
from graspl.runs import RunFolder, atomic_path

log = logging.getLogger(__name__)


class SaveAdapter(Callback):
    """Writes the adapter in PEFT format to `<default_root_dir>/adapter` when a fit ends."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, all or nothing."""
        if not isinstance(pl_module, AdapterLitModule) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        target = RunFolder(trainer.default_root_dir).adapter
        # Gathering sharded factors takes every process; only the first writes
        tensors = pl_module.adapter_state()
        if trainer.is_global_zero:
            with atomic_path(target) as folder:
                pl_module.save_adapter(folder, tensors)
            log.info("adapter: %s", target)


class SaveDirections(Callback):
    """Identifies the directions when a naive fit ends, and writes `<default_root_dir>/directions.safetensors`.

    A fit under a constraint has the directions already, so nothing is written then.

    Args:
        method: how they are found.
    """

    def __init__(self, method: Identification = TopSingular()) -> None:  # noqa: B008 - has no state
        self.method = method

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them, from the adapter just saved."""
        naive = isinstance(pl_module, AdapterLitModule) and not isinstance(pl_module, GRASPLitModule)
        if naive and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            run = RunFolder(trainer.default_root_dir)
            identify_adapter(run.adapter, self.method, run.directions)
            log.info("directions: %s", run.directions)
