"""Checkpoints of a fit, whole or sharded, as adapters: read without their base model, and building no foreign types."""

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

from graspl.errors import GrasplError

CHECKPOINT_KEY = "graspl"
"""Of what graspl keeps in a checkpoint beside Lightning's own."""
_SHARDED = ".metadata"
_REST = "meta.pt"
_STATE = "state_dict."
_NAME = re.compile(
    r"^model\.(?P<module>base_model\.model\..+\.lora_[AB])\.[^.]+\.weight$"
)  # less the adapter's name
# All that the index of torch.distributed.checkpoint is made of; anything else in it is refused
_INDEX_TYPES = {
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("torch", "Size"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "Metadata"),
    ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
    ("torch.distributed.checkpoint.metadata", "StorageMeta"),
    ("torch.distributed.checkpoint.metadata", "TensorProperties"),
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.serialization", "_get_layout"),
}


@dataclass(frozen=True)
class AdapterCheckpoint:
    """The adapter of a fit that may still be going on."""

    base_model: str
    """Name or folder of the model."""
    config: dict[str, Any]
    """As in PEFT's `adapter_config.json`."""
    tensors: dict[str, Tensor]
    """By PEFT's names, as in `adapter_model.safetensors`."""
    is_flat_sharded: bool = False
    """Whether FSDP1 wrote it, which numbers the optimizer's parameters in its own way."""


def peft_fields(config: PeftConfig) -> dict[str, Any]:
    """Return an adapter's configuration in plain values, as PEFT writes it."""
    return json.loads(json.dumps(config.to_dict(), default=list))


def is_checkpoint(path: Path) -> bool:
    """Return whether a path is a checkpoint: a file, or a folder of shards."""
    return (path / _SHARDED).is_file() or (path.is_file() and path.suffix == ".ckpt")


def read_checkpoint(path: Path) -> AdapterCheckpoint:
    """Read the adapter of a checkpoint; of a sharded one every process's part, in this process.

    Args:
        path: a `.ckpt` file, or a folder written by a sharded strategy.

    Raises:
        GrasplError: it cannot be read, or was not written by graspl.
    """
    try:
        rest, state = _read_sharded(path) if path.is_dir() else _read_whole(path)
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        raise GrasplError(
            f"{path}: not readable as a checkpoint ({error}); give one of a graspl fit"
        ) from error
    kept = rest.get(CHECKPOINT_KEY)
    if not isinstance(kept, dict) or "lora" not in kept:
        raise GrasplError(f"{path}: was not written by a graspl fit; give one that was")
    tensors = {
        f"{match['module']}.weight": tensor for name, tensor in state.items() if (match := _NAME.match(name))
    }
    return AdapterCheckpoint(kept["base_model"], kept["lora"], tensors, bool(kept.get("flat_sharded", False)))


def _read_whole(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    _refuse_inflated(path)
    # Tensors and plain values alone
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
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as is asked for
        try:
            load(state, storage_reader=reader, no_dist=True)
        except CheckpointException as error:  # a BaseException, with a traceback for a message
            raise ValueError("a shard is broken or missing") from error
    _refuse_inflated(path / _REST)
    rest = torch.load(path / _REST, map_location="cpu", weights_only=True)  # noqa: TID251
    return rest, {name.removeprefix(_STATE): tensor for name, tensor in state.items()}


def _refuse_inflated(path: Path) -> None:
    """Refuse an archive that would be larger in memory than on disk: PyTorch stores tensors as they are.

    Raises:
        ValueError: it is one.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        held = sum(entry.file_size for entry in archive.infolist())
    if held > path.stat().st_size:
        raise ValueError(f"it is {path.stat().st_size} bytes and would unpack to {held}")


class _Reader(FileSystemReader):
    """PyTorch's reader of sharded checkpoints, but for the index, which PyTorch unpickles whatever it is made of."""

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
    """Builds the types of the index and dtypes alone, so that a foreign file can call nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the types of the index."""
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in _INDEX_TYPES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"its index names {module}.{name}")
