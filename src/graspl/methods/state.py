"""What is kept of a fit: the adapter alone, in Lightning's checkpoints and in PEFT's format, however the model is sharded."""

import re
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn

from graspl.adapters.checkpoint import CHECKPOINT_KEY, peft_fields
from graspl.adapters.sharding import plain_name, whole
from graspl.errors import GrasplError


class AdapterState(LightningModule):
    """A module of which nothing but the adapter is trained and kept."""

    base_model: str
    """As in AdapterLitModule."""
    load_in_4bit: bool
    """As in AdapterLitModule."""
    model: PeftModel | None
    """None before `configure_model`."""

    def __init__(self) -> None:
        super().__init__()
        # The checkpoint holds only the adapter; on_load_checkpoint checks what it is of
        self.strict_loading = False
        self.register_state_dict_post_hook(_drop_frozen)

    @property
    def is_flat_sharded(self) -> bool:
        """Whether FSDP1 shards the frozen weights, and nothing but graspl brings the adapter's gradients together."""
        return self._trainer is not None and isinstance(self.trainer.strategy, FSDPStrategy)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the adapter's parameters by the names that they have in a model of one process."""
        return {plain_name(name): p for name, p in self.named_parameters() if p.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the adapter is of, and the state of the random generator; the state dict holds the adapter alone."""
        assert self.model is not None, "configure_model comes first"
        checkpoint[CHECKPOINT_KEY] = {
            "base_model": self.base_model,
            "lora": peft_fields(self.model.peft_config["default"]),
            "shapes": self._adapter_shapes(),
            "random_state": torch.get_rng_state(),
            "flat_sharded": self.is_flat_sharded,
        }
        _reopen_epoch(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this model, and remember the random state.

        Raises:
            GrasplError: it is of another model, adapter or program.
        """
        kept = checkpoint.get(CHECKPOINT_KEY)
        if kept is None:
            raise GrasplError("ckpt_path: the checkpoint was not written by graspl; give one of this run")
        self.configure_model()
        ours, theirs = self._adapter_shapes(), kept["shapes"]
        if ours != theirs:
            odd = sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name))[0]
            raise GrasplError(
                f"ckpt_path: the checkpoint is of another model or adapter (base_model {kept['base_model']}), e.g. {odd} "
                "differs; give one of this run"
            )
        self._random_state = kept["random_state"]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the adapter; under FSDP1 without gathering the frozen weights, which its own hooks would do."""
        if not self.is_flat_sharded:
            return super().state_dict(*args, **kwargs)
        return {name: p.detach() for name, p in self.trained().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the adapter; under FSDP1 without gathering the frozen weights.

        Raises:
            GrasplError: under FSDP1, it is of another adapter; elsewhere `on_load_checkpoint` says so.
        """
        if not self.is_flat_sharded:
            return super().load_state_dict(state_dict, *args, **kwargs)
        trained = self.trained()
        odd = next((name for name, p in trained.items() if _shape(state_dict.get(name)) != p.shape), None)
        if odd is not None:
            raise GrasplError(
                f"ckpt_path: the checkpoint is of another model or adapter, e.g. {odd} differs; give one of this run"
            )
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(state_dict[name])
        return None

    def _adapter_shapes(self) -> dict[str, list[int]]:
        return {name: list(p.shape) for name, p in self.trained().items()}

    def on_train_start(self) -> None:
        """Go on with the random state of the checkpoint, which dropout draws from."""
        state = getattr(self, "_random_state", None)
        if state is not None and self.trainer.world_size == 1:
            torch.set_rng_state(state)
        self._random_state = None

    def adapter_state(self) -> dict[str, Tensor]:
        """Return the adapter's tensors, whole also where they are sharded; every process must call it."""
        assert self.model is not None, "configure_model comes first"
        tensors = {
            plain_name(name): p.detach() for name, p in self.model.named_parameters() if p.requires_grad
        }
        return {name: whole(tensor).cpu().contiguous() for name, tensor in tensors.items()}

    def save_adapter(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """Write the adapter in PEFT format.

        Args:
            folder: made here; give a temporary name and rename (`graspl.runs.atomic_path`).
            tensors: of `adapter_state`.
        """
        assert self.model is not None, "configure_model comes first"
        if self.is_flat_sharded:
            # PEFT looks for its layers by names, which FSDP1's wrappers have got into
            config = copy(self.model.peft_config["default"])
            config.inference_mode = True
            config.save_pretrained(str(folder))
            named = {
                re.sub(r"\.(lora_[AB])\.default\.", r".\1.", name): each for name, each in tensors.items()
            }
            save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
            return
        # Embeddings are never trained here; asking PEFT to look would make it search the hub for the base model
        self.model.save_pretrained(str(folder), state_dict=tensors, save_embedding_layers=False)

    def refuse_flat_shards(self) -> None:
        """Refuse what does not go together with FSDP1."""
        if getattr(self.trainer.strategy, "_state_dict_type", "full") != "full":
            raise GrasplError(
                "trainer.strategy.state_dict_type: with FSDP1 the adapter is whole on every process; leave it at full"
            )
        if self.load_in_4bit:
            raise GrasplError(
                "model.load_in_4bit: FSDP1 cannot flatten quantised weights; take DDP (configs/trainer/ddp.yaml)"
            )


def _reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Make the end of a fit a place to go on from, in place: the epoch is not done where batches of it are left.

    Lightning counts the one in which `max_steps` ends a fit as done: a fit that goes on with more steps would leave out what
    is left of it, and as many rows of the next epoch as it has had of this one. Where none are left, it would take the next
    epoch for done, too, unless that begins at its first batch.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    batches, epochs = loop.get("epoch_loop.batch_progress"), loop.get("epoch_progress")
    if not epochs or epochs["current"]["completed"] < epochs["current"]["started"]:
        return
    if batches["is_last_batch"]:
        batches["current"] = dict.fromkeys(batches["current"], 0)
        batches["is_last_batch"] = False
        return
    for counts in (epochs["current"], epochs["total"]):
        counts["processed"] -= 1
        counts["completed"] -= 1
    checkpoint["epoch"] -= 1


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _drop_frozen(module: nn.Module, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    """Leave what is not trained out of a state dict, before a sharded strategy would gather it for a checkpoint."""
    trained = {prefix + name for name, p in module.named_parameters() if p.requires_grad}
    for name in [name for name in state_dict if name.startswith(prefix) and name not in trained]:
        del state_dict[name]
