"""What a part sees of the module that trains: penalties, starts, transforms and direction sources are given one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from torch.optim import Optimizer

from graspl.adapters.sites import Site
from graspl.data.tokens import TokenizedConversation
from graspl.directions.basis import Directions


class Host(Protocol):
    """The module that trains, as its parts see it; `LoRALitModule` is one."""

    base_model: str  # Name or folder of the base model
    options: Any  # How the base model is loaded (`graspl.methods.model.ModelOptions`)
    model: PeftModel | None  # The base model with the adapter
    sites: list[Site]  # The adapter's sites, with live factors
    directions_in_use: Directions | None  # Read from a file or found in the fit; None before they are known
    trainer: Any  # Lightning's trainer, with the DataModule
    optimizer: Callable[[Any], Optimizer]  # Makes an optimizer for parameters

    @property
    def device(self) -> torch.device:
        """Of this process."""
        ...

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        ...

    @property
    def is_flat_sharded(self) -> bool:
        """Whether FSDP1 shards the frozen weights."""
        ...

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        """Return the adapted model's logits, (b, L, vocabulary)."""
        ...

    def answer_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy summed over a batch's answer tokens, in nats, and their number."""
        ...

    def base_forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the base model's logits, (b, L, vocabulary), without gradients."""
        ...

    def unedited(self) -> AbstractContextManager[None]:
        """Run forward passes within the block without edits and stream constraints."""
        ...

    def own_text(self, count: int) -> list[TokenizedConversation]:
        """Return `count` rows that the base model wrote before training, in the task's form; every process must call it."""
        ...

    def whole_sites(self) -> list[Site]:
        """Return the sites with whole factors; every process must call it."""
        ...
