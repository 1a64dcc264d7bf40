"""Directions: an orthonormal basis a site on each side, with the spectrum it came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graspl.adapters.sharding import like
from graspl.adapters.sites import Site
from graspl.errors import GrasplError

FORMAT = "graspl-directions-1"
_PARTS = ("U", "S", "V")


class SiteDirections(NamedTuple):
    """Directions of one site."""

    U: Float[Tensor, "out k"]
    """(out, k) orthonormal columns: what the spurious update writes."""
    S: Float[Tensor, " m"]
    """(m,) singular values of the whole update, descending; all, not only the first k."""
    V: Float[Tensor, "in_ k"]
    """(in, k) orthonormal columns: what the spurious update reads."""


@dataclass(frozen=True)
class Directions:
    """Directions of all sites of an adapter, and where they came from."""

    sites: dict[str, SiteDirections]
    """By module name, e.g. `model.layers.0.self_attn.q_proj`."""
    metadata: dict[str, str] = field(default_factory=dict)
    """`base_model`, `adapter`, `adapter_sha256`, `identification`, `k`, `graspl`, ..."""

    def save(self, path: Path) -> None:
        """Write one safetensors file; tensors `<site>.U`, `<site>.S`, `<site>.V` and the metadata.

        Args:
            path: the file; give a temporary name and rename (`graspl.runs.atomic_path`).
        """
        tensors = {
            f"{name}.{part}": getattr(site, part).detach().cpu().contiguous()
            for name, site in self.sites.items()
            for part in _PARTS
        }
        save_file(tensors, path, metadata={**self.metadata, "format": FORMAT})

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read what `save` wrote.

        Raises:
            GrasplError: no such file, not such a file, or a basis that is not orthonormal or not finite.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as error:
            raise GrasplError(f"{path}: not readable as directions ({error}); run graspl identify") from error
        if metadata.get("format") != FORMAT:
            raise GrasplError(f"{path}: holds no graspl directions; make some with graspl identify")
        names = sorted({key.rpartition(".")[0] for key in tensors})
        if set(tensors) != {f"{name}.{part}" for name in names for part in _PARTS} or not names:
            raise GrasplError(f"{path}: a site has no U, S or V; make the file again with graspl identify")
        sites = {name: SiteDirections(*(tensors[f"{name}.{part}"] for part in _PARTS)) for name in names}
        for name, site in sites.items():
            _check_basis(f"{path}: {name}.U", site.U)
            _check_basis(f"{path}: {name}.V", site.V)
        return cls(sites, {key: value for key, value in metadata.items() if key != "format"})

    def require_base_model(self, base_model: str) -> None:
        """Check that they were found on this base model; models of equal shape are told apart by name only.

        Args:
            base_model: hub name or folder; the last part counts, so that a folder may be moved.

        Raises:
            GrasplError: they were found on another one. Directions that do not say are taken.
        """
        theirs = self.metadata.get("base_model")
        if theirs and PurePath(theirs).name != PurePath(base_model).name:
            raise GrasplError(
                f"directions: found on the base model {theirs}, this is {base_model}; run graspl identify on an adapter of it"
            )

    def width(self, side: str) -> int:
        """Return how many directions of a side (`U` or `V`) every site has."""
        return min(getattr(site, side).shape[1] for site in self.sites.values())

    def bases(self, sites: Sequence[Site], *, side: str, k: int) -> list[Tensor]:
        """Return the first k directions of one side for each site, in the sites' order, dtype and device.

        Args:
            sites: of the model in training.
            side: `U` (out, k) or `V` (in, k).
            k: how many.

        Raises:
            GrasplError: they were made for other sites, shapes or fewer directions.
        """
        if k < 1:
            raise GrasplError(f"constraint.k: {k} is below 1; give how many directions a site shall be held")
        self._check_sites(sites)
        bases = []
        for site in sites:
            D: Tensor = getattr(self.sites[site.name], side)
            if D.shape[1] < k:
                raise GrasplError(
                    f"directions: {site.name} has {D.shape[1]} but the constraint wants k = {k}; lower it, or run graspl "
                    f"identify for at least {k}"
                )
            dtype = torch.promote_types(site.B.dtype, torch.float32)
            bases.append(like(D[:, :k].to(device=site.B.device, dtype=dtype).contiguous(), site.B))
        return bases

    def _check_sites(self, sites: Sequence[Site]) -> None:
        mend = "run graspl identify on an adapter of this model with the same lora.target_modules"
        ours, theirs = {site.name for site in sites}, set(self.sites)
        if ours != theirs:
            odd = sorted(ours ^ theirs)[0]
            where = "the adapter in training" if odd in ours else "the directions"
            raise GrasplError(
                f"directions: made for {len(theirs)} sites, the adapter has {len(ours)}; e.g. {odd} is only in {where}; "
                f"{mend}"
            )
        for site in sites:
            found = self.sites[site.name]
            shape = (found.U.shape[0], found.V.shape[0])
            if shape != site.shape:
                raise GrasplError(
                    f"directions: {site.name} was made for a weight {shape}, this model's is {site.shape}; {mend}"
                )


def _check_basis(where: str, D: Tensor) -> None:
    # 1e-3 lets bases stored in half precision pass and nothing that is no basis
    gram = D.double().mT @ D.double() if D.ndim == 2 else torch.full((1, 1), torch.nan)
    if not torch.allclose(gram, torch.eye(gram.shape[0], dtype=torch.float64), atol=1e-3):
        raise GrasplError(
            f"{where}: the columns are not orthonormal; make the file again with graspl identify"
        )
