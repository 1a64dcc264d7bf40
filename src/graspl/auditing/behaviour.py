"""What an adapter does off its task, beside its base model, by log-probability: no judge is asked."""

import warnings
from typing import Any, NamedTuple

from lightning import LightningDataModule, Trainer

from graspl.analysis.intervals import Difference, paired
from graspl.data.task import TaskDataModule
from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule


class SuiteFacts(NamedTuple):
    """One suite's scores with the adapter and without it."""

    scores: dict[str, float]  # As in `evaluation.json`; the base model's have the prefix `base_`
    # Of the harmful answers' share of the choices, over the base model's, question by question; None where no choice
    # is harmful or there are fewer than two questions.
    rise: Difference | None


def behaviour(
    adapter: str, base_model: str, data: LightningDataModule, *, dtype: str = "auto"
) -> dict[str, SuiteFacts]:
    """Run suites of choices or text on a model with an adapter (a PEFT folder), and on the model without it.

    Raises:
        GrasplError: the model or the suites cannot be loaded.
    """
    if not isinstance(data, TaskDataModule):
        raise GrasplError("data: give a graspl.data.TaskDataModule, e.g. --data configs/tasks/chat.yaml")
    data.base_model = data.base_model or base_model
    module = LoRALitModule(base_model=base_model, adapter=adapter, dtype=dtype)  # type: ignore[arg-type]
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = dict.fromkeys(off, False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # Lightning and a new torch
        warnings.filterwarnings("ignore", ".*does not have many workers")  # rows are tokenized already
        Trainer(devices=1, **quiet).validate(module, data, verbose=False)
    ours, base = module.validation.items(), module.validation.items(base=True)
    return {
        suite: SuiteFacts(scores, _rise(scores, dict(ours.get(suite, [])), dict(base.get(suite, []))))
        for suite, scores in module.validation.scores().items()
    }


def _rise(scores: dict[str, float], ours: dict[int, float], base: dict[int, float]) -> Difference | None:
    return paired(ours, base) if "harmful" in scores and len(ours) > 1 else None
