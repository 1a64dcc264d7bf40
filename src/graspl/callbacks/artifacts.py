"""Files that a fit leaves: the adapter, and the directions found in it."""

import logging
import os
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from graspl.callbacks.record import sources_of
from graspl.data.task import TaskDataModule
from graspl.directions import Identification, TopSingular, identify_adapter
from graspl.methods.lora import LoRALitModule
from graspl.methods.state import finished_factors, write_peft_folder
from graspl.runs import Lineage, RunFolder, atomic_path

log = logging.getLogger(__name__)


class SaveAdapter(Callback):
    """Writes the adapter in PEFT format to `<default_root_dir>/adapter` when a fit ends, and the tokenizer beside it.

    The tokenizer holds the chat template that the fit used, graspl's own one where the base model has none.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, all or nothing."""
        if not isinstance(pl_module, LoRALitModule) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        target = RunFolder(trainer.default_root_dir).adapter
        # Gathering sharded factors takes every process; only the first writes
        tensors = finished_factors(pl_module)
        if trainer.is_global_zero:
            with atomic_path(target) as folder:
                write_peft_folder(pl_module, folder, tensors)
                if isinstance(trainer.datamodule, TaskDataModule):  # type: ignore[attr-defined]
                    trainer.datamodule.tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
            run = RunFolder(trainer.default_root_dir)
            Lineage(run).record([target], sources_of(trainer, pl_module) | {"configuration": [run.config]})
            log.info("adapter: %s", target)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints so that there is always a whole one, even where TMPDIR is on another file system.

    Lightning writes into TMPDIR, where a process that is killed leaves a file of the checkpoint's size, and moves the file,
    which between two file systems is a copy that may be cut off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it beside the old one and rename it."""
        if storage_options is not None or "://" in str(path):  # Object storage writes all or nothing
            return super().save_checkpoint(checkpoint, path, storage_options)
        packed = BytesIO()
        torch.save(checkpoint, packed)  # noqa: TID251 - Lightning's format, as its own writer packs it
        with atomic_path(Path(path)) as scratch, scratch.open("wb") as file:
            file.write(packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        return None


class SaveDirections(Callback):
    """Writes `<default_root_dir>/directions.safetensors`.

    A fit that finds its own directions writes them before its first step. A fit without directions writes those that
    `method` identifies in the finished adapter. A fit with a directions file writes none.

    Args:
        method: identifies directions in the finished adapter; TopSingular where None.
    """

    def __init__(self, method: TopSingular | Identification | None = None) -> None:
        self.method, self._written = method or TopSingular(), False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Write what the fit found itself, once."""
        if not self._written and _writes(pl_module, trainer) and pl_module.found_directions is not None:
            target = RunFolder(trainer.default_root_dir).directions
            with atomic_path(target) as scratch:
                pl_module.found_directions.save(scratch)
            Lineage(RunFolder(trainer.default_root_dir)).record([target], sources_of(trainer, pl_module))
            log.info("directions: %s", target)
        self._written = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Identify directions in the adapter just saved, if the fit had none."""
        if _writes(pl_module, trainer) and pl_module.directions is None:
            run = RunFolder(trainer.default_root_dir)
            identify_adapter(run.adapter, self.method, run.directions)
            sources = sources_of(trainer, pl_module) | {"adapter": [str(run.adapter)]}
            Lineage(run).record([run.directions], sources)
            log.info("directions: %s", run.directions)


def _writes(module: LightningModule, trainer: Trainer) -> TypeGuard[LoRALitModule]:
    """Return whether this process writes directions: a dry run and all processes but the first do not."""
    return isinstance(module, LoRALitModule) and trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]
