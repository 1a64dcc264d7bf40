"""What is kept of a fit: the adapter alone, in Lightning's checkpoints and in PEFT's format, however the model is sharded."""

import hashlib
import re
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from graspl.adapters.checkpoint import CHECKPOINT_KEY, peft_fields
from graspl.adapters.sharding import average_gradients, is_factor, plain_name, whole
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.runs.digests import sha256_of


def factors(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters, frozen ones too, by the names that they have in a model of one process."""
    return {plain_name(name): p for name, p in module.named_parameters() if is_factor(name)}


def shapes(module: nn.Module) -> dict[str, list[int]]:
    """Return the shape of every factor by name."""
    return {name: list(p.shape) for name, p in factors(module).items()}


def gather_gradients(module: Any) -> None:
    """Average the adapter's gradients over processes where the strategy does not; first in an optimizer step."""
    if module.is_flat_sharded:
        average_gradients(list(factors(module).values()))


def keep(module: Any, checkpoint: dict[str, Any]) -> None:
    """Write into a checkpoint, beside the adapter, what a LoRALitModule is, and reopen the epoch."""
    found = module.found_directions
    kept = {"tensors": found.tensors(), "metadata": found.metadata} if found else None
    checkpoint[CHECKPOINT_KEY] = {
        "base_model": module.base_model,
        "lora": peft_fields(module.model.peft_config["default"]),
        "shapes": shapes(module),
        "random_state": torch.get_rng_state(),
        "flat_sharded": module.is_flat_sharded,
        "directions_sha256": _sha256(module.directions),
        "rows": _rows(module.trainer.datamodule),
        **({"directions": kept} if kept else {}),
    }
    reopen_epoch(checkpoint)


def restored(module: Any, checkpoint: dict[str, Any]) -> tuple[Tensor, Directions | None]:
    """Return a checkpoint's random state and directions.

    Raises:
        GrasplError: the checkpoint is of another model, adapter or program, or of a fit with another directions file.
    """
    kept = checkpoint.get(CHECKPOINT_KEY)
    if kept is None:
        raise GrasplError("ckpt_path: the checkpoint was not written by graspl; give one of this run")
    ours, theirs = shapes(module), kept["shapes"]
    if ours != theirs:
        odd = sorted(name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name))[0]
        of = f"another model or adapter (base_model {kept['base_model']}), e.g. {odd} differs"
        raise GrasplError(f"ckpt_path: the checkpoint is of {of}; give one of this run")
    held = checkpoint.get("state_dict")  # A sharded checkpoint is loaded later, and checked by PyTorch
    lost = sorted(ours.keys() - held.keys()) if held is not None else []
    if lost:
        raise GrasplError(
            f"ckpt_path: the checkpoint lacks {len(lost)} of {len(ours)} factors, e.g. {lost[0]}; give a whole one"
        )
    if kept["base_model"] != module.base_model:
        of = f"base_model {kept['base_model']}, not of {module.base_model}"
        raise GrasplError(f"ckpt_path: the checkpoint is of {of}; name the one it was trained on")
    fitting = module.trainer.state.fn == "fit"
    if fitting:
        _check_rows(kept.get("rows", {}), module.trainer.datamodule)
    # A validation may measure a naive fit along any directions
    measures = not fitting and kept.get("directions_sha256") is None
    if not measures and kept.get("directions_sha256") != _sha256(module.directions):
        fix = "name the file that the checkpoint was trained with, or start a new run"
        raise GrasplError(f"model.directions: {module.directions} is another file; {fix}")
    if "directions" not in kept:
        return kept["random_state"], None
    found = kept["directions"]
    return kept["random_state"], Directions.from_tensors(found["tensors"], found["metadata"], "ckpt_path")


def _rows(data: Any) -> dict[str, str]:
    """Return the SHA-256 of each file whose rows a data module has read."""
    files = data.sources() if isinstance(data, TaskDataModule) else []
    return {name: sha256_of(Path(name)) for name in files if Path(name).is_file()}


def _check_rows(kept: Mapping[str, str], data: Any) -> None:
    """Refuse to go on with rows that the checkpoint was not trained on; a file may have moved."""
    changed = [name for name, digest in _rows(data).items() if kept and digest not in kept.values()]
    if changed:
        fix = "go on with the rows of that run, or start a new one"
        raise GrasplError(
            f"ckpt_path: the rows of {changed[0]} are not those that the checkpoint was trained on; {fix}"
        )


def load_flat(module: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load the adapter under FSDP1 without gathering the frozen weights; a state of another adapter is refused."""
    with torch.no_grad():
        for name, p in factors(module).items():
            if name not in state_dict or state_dict[name].shape != p.shape:
                of = f"another model or adapter, e.g. {name} differs"
                raise GrasplError(f"ckpt_path: the checkpoint is of {of}; give one of this run")
            p.copy_(state_dict[name])


def finished_factors(module: Any) -> dict[str, Tensor]:
    """Return the adapter's tensors as they are saved: on the CPU, whole, after the transforms; every process must call it."""
    module.finisher.apply(module)
    # Copies: on the CPU the tensors are the live factors, which are put back
    live = factors(module.model)
    tensors = {name: whole(p.detach()).cpu().contiguous().clone() for name, p in live.items()}
    module.finisher.undo(module)
    return tensors


def write_peft_folder(module: Any, folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write what `finished_factors` returned in PEFT format, into a folder that is made here."""
    if module.is_flat_sharded:
        # PEFT looks for its layers by names, which FSDP1's wrappers have changed
        config = copy(module.model.peft_config["default"])
        config.inference_mode = True
        config.save_pretrained(str(folder))
        named = {re.sub(r"\.(lora_[AB])\.default\.", r".\1.", name): each for name, each in tensors.items()}
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return
    # Embeddings are never trained here; asking PEFT to look would make it search the hub for the base model
    module.model.save_pretrained(str(folder), state_dict=tensors, save_embedding_layers=False)


def reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Make the end of a fit a place to go on from, in place: the epoch is not done where batches of it are left.

    Lightning counts the epoch in which `max_steps` ends a fit as done. A fit that goes on with more steps would leave out the
    rest of it, and as many rows of the next epoch as it has had of this one. Where no batch is left, it would take the next
    epoch for done too, unless that begins at its first batch.
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


def drop_frozen(module: nn.Module, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    """Leave the base model out of a state dict, before a sharded strategy would gather it for a checkpoint."""
    trained = {prefix + name for name, p in module.named_parameters() if p.requires_grad or is_factor(name)}
    for name in [name for name in state_dict if name.startswith(prefix) and name not in trained]:
        del state_dict[name]


def refuse_flat_shards(module: Any) -> None:
    """Refuse options and parts that do not work with FSDP1."""
    if getattr(module.trainer.strategy, "_state_dict_type", "full") != "full":
        raise GrasplError("trainer.strategy.state_dict_type: with FSDP1 it must be full")
    if module.options.load_in_4bit:
        raise GrasplError("model.load_in_4bit: not with FSDP1; use DDP (--trainer.strategy ddp)")
    odd = next((each for each in module.penalties if not each.flat_shards), None)
    if odd is not None:
        fix = "use DDP (--trainer.strategy ddp) or FSDP2 (configs/trainer/fsdp.yaml)"
        raise GrasplError(f"trainer.strategy: {type(odd).__name__} does not work with FSDP1; {fix}")


def _sha256(directions: Any) -> str | None:
    """Return the hexadecimal SHA-256 of a directions file; None where none is named or there."""
    if not isinstance(directions, str) or not Path(directions).is_file():
        return None
    with Path(directions).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
