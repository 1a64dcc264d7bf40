"""A directions file: tensors and metadata in safetensors, and what it may hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from graspl.errors import GrasplError, foreign

FORMAT = "graspl-directions-1"
AGAIN = "make the file again with graspl identify"


class SiteDirections(NamedTuple):
    """Directions of one site."""

    U: Float[Tensor, "out k"]  # (out, k) orthonormal columns: what the spurious update writes
    S: Float[Tensor, " m"]  # (m,) singular values of the whole update, descending; all, not only the first k
    V: Float[Tensor, "in_ k"]  # (in, k) orthonormal columns: what the spurious update reads


class LayerDirections(NamedTuple):
    """Directions in the residual stream after one decoder layer."""

    D: Float[Tensor, "hidden k"]  # (hidden, k) orthonormal columns
    S: Float[Tensor, " m"]  # (m,) strengths, descending; all that were found, not only the first k


def read_metadata(path: Path) -> dict[str, str]:
    """Return a directions file's metadata, without its tensors."""
    return read_file(path, tensors=False)[0]


def read_file(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return a directions file's metadata and, unless told otherwise, its tensors, unchecked."""
    with (
        foreign(path, "not readable as directions", "run graspl identify"),
        safe_open(path, framework="pt") as file,
    ):
        metadata = file.metadata() or {}
        found = {name: file.get_tensor(name) for name in (file.keys() if tensors else ())}
    if metadata.pop("format", None) != FORMAT:
        raise GrasplError(f"{path}: holds no graspl directions; make some with graspl identify")
    return metadata, found


def checked_parts(
    tensors: Mapping[str, Tensor], origin: str
) -> tuple[dict[str, SiteDirections], dict[str, LayerDirections]]:
    """Sort the tensors of a file by site and by layer, and check the bases; `origin` is named in errors."""
    sites, layers = {}, {}
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        parts = {key.rpartition(".")[2]: tensors[key] for key in tensors if key.rpartition(".")[0] == name}
        if set(parts) == set(SiteDirections._fields):
            sites[name] = SiteDirections(**parts)
        elif set(parts) == set(LayerDirections._fields):
            layers[name] = LayerDirections(**parts)
        else:
            raise GrasplError(f"{origin}: {name} has {sorted(parts)}, not U, S, V or D, S; {AGAIN}")
        for part in set(parts) - {"S"}:
            _check_basis(f"{origin}: {name}.{part}", parts[part])
    if not sites and not layers:
        raise GrasplError(f"{origin}: holds no directions; {AGAIN}")
    return sites, layers


def _check_basis(where: str, D: Tensor) -> None:
    # 1e-3 accepts bases stored in half precision, and nothing that is not a basis
    gram = D.double().mT @ D.double() if D.ndim == 2 else torch.full((1, 1), torch.nan)
    if not torch.allclose(gram, torch.eye(gram.shape[0], dtype=torch.float64), atol=1e-3):
        raise GrasplError(f"{where}: the columns are not orthonormal; {AGAIN}")
