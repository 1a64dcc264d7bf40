"""When checkpoints are written."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class SaveCheckpoints(ModelCheckpoint):
    """Lightning's checkpoints; one that is due at a validation is written behind it.

    Lightning writes it before. A fit that is killed within its last validation then goes on from a checkpoint that has no
    steps left, and its log would end without that validation.
    """

    _behind: int | None = None  # The batch behind whose validation a checkpoint may be due

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write it, unless a validation comes first."""
        loop = trainer.fit_loop
        if loop.epoch_loop._should_check_val_fx(loop._data_fetcher):  # type: ignore[arg-type] - set while batches come
            self._behind = batch_idx
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was due before it."""
        if self._behind is not None:
            batch_idx, self._behind = self._behind, None
            super().on_train_batch_end(trainer, pl_module, None, None, batch_idx)
        super().on_validation_end(trainer, pl_module)
