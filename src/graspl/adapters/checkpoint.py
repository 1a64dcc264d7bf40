"""Checkpoints of a fit, whole or sharded, read as adapters: without their base model, and without foreign types."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from graspl.errors import GrasplError, foreign

CHECKPOINT_KEY = "graspl"  # Key of graspl's own part of a Lightning checkpoint
_SHARDED = ".metadata"
_REST = "meta.pt"
_STATE = "state_dict."
# Of a factor; the part that is left out is the adapter's name
_NAME = re.compile(r"^model\.(?P<module>base_model\.model\..+\.lora_[AB])\.[^.]+\.weight$")
# All types that the index of torch.distributed.checkpoint is made of, by module; any other is refused
_INDEX_TYPES = {
    "collections": ("OrderedDict",),
    "pathlib": ("PosixPath", "PurePosixPath", "WindowsPath"),
    "torch": ("Size",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    ),
    "torch.serialization": ("_get_layout",),
}  # fmt: skip


@dataclass(frozen=True)
class AdapterCheckpoint:
    """The adapter of a fit that may still be running."""

    base_model: str  # Name or folder of the model
    config: dict[str, Any]  # As in PEFT's `adapter_config.json`
    tensors: dict[str, Tensor]  # By PEFT's names, as in `adapter_model.safetensors`
    # Whether FSDP1 wrote it; FSDP1 numbers the optimizer's parameters in its own way.
    is_flat_sharded: bool = False


def peft_fields(config: PeftConfig) -> dict[str, Any]:
    """Return an adapter's configuration in plain values, as PEFT writes it."""
    return json.loads(json.dumps(config.to_dict(), default=list))


def is_checkpoint(path: Path) -> bool:
    """Return whether a path is a checkpoint: a file, or a folder of shards."""
    return (path / _SHARDED).is_file() or (path.is_file() and path.suffix == ".ckpt")


def read_checkpoint(path: Path) -> AdapterCheckpoint:
    """Read the adapter of a graspl checkpoint, a `.ckpt` file or a folder of shards; this process reads every shard."""
    with foreign(path, "not readable as a checkpoint of a graspl fit", "give another checkpoint of the fit"):
        rest, state = _read_sharded(path) if path.is_dir() else _read_whole(path)
    kept: Any = rest.get(CHECKPOINT_KEY) if isinstance(rest, dict) and isinstance(state, dict) else None
    kinds = {"lora": dict, "base_model": str}
    if not isinstance(kept, dict) or not all(
        isinstance(kept.get(name), kind) for name, kind in kinds.items()
    ):
        raise GrasplError(f"{path}: was not written by a graspl fit; give a checkpoint of a graspl fit")
    tensors = {
        f"{match['module']}.weight": tensor
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, Tensor) and (match := _NAME.match(name))
    }
    return AdapterCheckpoint(kept["base_model"], kept["lora"], tensors, bool(kept.get("flat_sharded", False)))


def check_loads(path: Path) -> None:
    """Refuse a checkpoint file that Lightning could not read: a broken one, or one that is larger in memory than on disk."""
    with foreign(path, "not readable as a checkpoint", "give another checkpoint of the fit"):
        _read_whole(path)


def _read_whole(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    _refuse_inflated(path)
    # Only tensors and plain values
    content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    return content, content["state_dict"]


def _read_sharded(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    reader = _Reader(path)
    index: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    entries = {
        name: entry
        for name, entry in index.items()
        if name.startswith(_STATE) and isinstance(entry, TensorStorageMetadata)
    }
    claimed = sum(entry.size.numel() * entry.properties.dtype.itemsize for entry in entries.values())
    if claimed > sum(file.stat().st_size for file in path.iterdir()):
        raise ValueError(f"its index claims {claimed} bytes, more than its files have")
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # by no_dist
        try:
            load(state, storage_reader=reader, no_dist=True)
        except CheckpointException as error:  # a BaseException, with a traceback for a message
            raise ValueError("a shard is broken or missing") from error
    _refuse_inflated(path / _REST)
    rest = torch.load(path / _REST, map_location="cpu", weights_only=True)  # noqa: TID251
    return rest, {name.removeprefix(_STATE): tensor for name, tensor in state.items()}


def _refuse_inflated(path: Path) -> None:
    """Refuse an archive that is larger in memory than on disk; PyTorch does not compress tensors."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        held = sum(entry.file_size for entry in archive.infolist())
    if held > path.stat().st_size:
        raise ValueError(f"it is {path.stat().st_size} bytes and would unpack to {held}")


class _Reader(FileSystemReader):
    """PyTorch's reader of sharded checkpoints; PyTorch's own would unpickle any type in the index."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index."""
        with (Path(self.path) / _SHARDED).open("rb") as file:
            metadata = _IndexUnpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("its index is of another kind")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    """Builds only dtypes and the types of the index, so that a foreign file cannot call anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the types of the index."""
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _INDEX_TYPES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its index names {module}.{name}")
