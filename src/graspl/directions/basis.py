"""Directions: orthonormal bases of sites and of layers, with the spectra they came from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import torch
from safetensors.torch import save_file
from torch import Tensor

from graspl.adapters.sharding import like
from graspl.adapters.sites import Site
from graspl.directions.file import (
    FORMAT,
    LayerDirections,
    SiteDirections,
    checked_parts,
    read_file,
)
from graspl.errors import GrasplError

# Metadata key, `true` where only some layers of the model have directions and the others stay untouched.
SOME_LAYERS = "some_layers"
# Metadata keys, `true` or `false`: what `Identification` says of its directions.
SIGNED, FILTERS = "signed", "filters"


@dataclass(frozen=True)
class Directions:
    """Directions of sites, of layers or of both, and where they came from."""

    # By module name, e.g. `model.layers.0.self_attn.q_proj`; for write, read and pair constraints.
    sites: dict[str, SiteDirections]
    # `base_model`, `adapter`, `adapter_sha256`, `identification`, `k`, `signed`, `filters`, `graspl`, ...
    metadata: dict[str, str] = field(default_factory=dict)
    # By module name, e.g. `model.layers.0`; for residual and activation constraints.
    layers: dict[str, LayerDirections] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A view would keep the whole tensor it was cut from, and every constraint would copy it
        sites = {name: SiteDirections(*_contiguous(each)) for name, each in self.sites.items()}
        layers = {name: LayerDirections(*_contiguous(each)) for name, each in self.layers.items()}
        object.__setattr__(self, "sites", sites)
        object.__setattr__(self, "layers", layers)

    @property
    def is_signed(self) -> bool | None:
        """Whether a step forward along a direction raises the factor; None where the file does not say."""
        return _flag(self.metadata, SIGNED)

    @property
    def are_filters(self) -> bool | None:
        """Whether a fit pushes along them, not the base model itself; None where the file does not say."""
        return _flag(self.metadata, FILTERS)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file or a checkpoint holds: `<site>.U`, `.S`, `.V` and `<layer>.D`, `.S`, on the CPU."""
        return {
            f"{name}.{part}": tensor.detach().cpu().contiguous()
            for name, each in [*self.sites.items(), *self.layers.items()]
            for part, tensor in zip(each._fields, each, strict=True)
        }

    def save(self, path: Path) -> None:
        """Write one safetensors file; give a temporary path and rename it (`graspl.runs.atomic_path`)."""
        save_file(self.tensors(), path, metadata={**self.metadata, "format": FORMAT})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], metadata: dict[str, str], origin: str) -> "Directions":
        """Take what `tensors` returned, checked; `origin` is named in errors.

        Raises:
            GrasplError: a part is missing, or a basis is not orthonormal or not finite.
        """
        sites, layers = checked_parts(tensors, origin)
        return cls(sites, metadata, layers)

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read what `save` wrote.

        Raises:
            GrasplError: there is no such file, it holds something else, or a basis is not orthonormal or not finite.
        """
        metadata, tensors = read_file(Path(path))
        return cls.from_tensors(tensors, metadata, str(path))

    def require_base_model(self, base_model: str) -> None:
        """Check that they were found on this base model, by the last part of its name or folder.

        Raises:
            GrasplError: the directions name another base model. Directions without a name pass.
        """
        theirs = self.metadata.get("base_model")
        if theirs and PurePath(theirs).name != PurePath(base_model).name:
            raise GrasplError(
                f"directions: found on the base model {theirs}, this is {base_model}; run graspl identify on an adapter of it"
            )

    def width(self, side: str) -> int:
        """Return how many directions of a side (`U` or `V`) every site has, or (`D`) every layer; 0 without any."""
        held = self.layers if side == "D" else self.sites
        return min((getattr(each, side).shape[1] for each in held.values()), default=0)

    def bases(self, sites: Sequence[Site], *, side: str, k: int | None) -> list[Tensor]:
        """Return the first k directions of one side for each site, in the sites' order, dtype and device.

        Args:
            sites: of the model in training.
            side: `U` (out, k) or `V` (in, k).
            k: how many; None takes all that every site has.

        Returns:
            (out, k) or (in, k) each; where a site is sharded, left ones are split over processes as B is.

        Raises:
            GrasplError: the directions have other sites, other shapes or fewer than k.
        """
        self._check_sites(sites)
        k = self._count(k, side)
        bases = []
        for site in sites:
            D: Tensor = getattr(self.sites[site.name], side)
            dtype = torch.promote_types(site.B.dtype, torch.float32)
            held = D[:, :k].to(device=site.B.device, dtype=dtype).contiguous()
            bases.append(like(held, site.B, split=side == "U"))
        return bases

    def layer_bases(self, names: Sequence[str], *, k: int | None) -> list[Tensor]:
        """Return the first k directions of each layer, (hidden, k), in the order given.

        Where only some layers have directions (`SOME_LAYERS`), the others' are (hidden, 0).

        Args:
            names: of all decoder layers of the model in training, as `decoder_layers` returns them.
            k: how many; None takes all that every layer has.

        Raises:
            GrasplError: there are no layers, other layers, or fewer than k directions.
        """
        if not self.layers:
            raise GrasplError(
                "directions: hold sites only, but layers are needed; let the fit find them (model.directions: null), or make "
                "some with graspl identify --method graspl.activations.NaturalDirections --method.text FILE"
            )
        # A file with fewer layers belongs to another model, unless it says that it leaves some out
        partly = self.metadata.get(SOME_LAYERS) == "true" and set(self.layers) <= set(names)
        if set(names) != set(self.layers) and not partly:
            odd = sorted(set(names) ^ set(self.layers))[0]
            raise GrasplError(
                f"directions: made for {len(self.layers)} layers, the model has {len(names)}, e.g. {odd} is only in one; "
                "run graspl identify on an adapter of this model"
            )
        k = self._count(k, "D")
        none = next(iter(self.layers.values())).D[:, :0]
        return [
            self.layers[name].D[:, :k].contiguous() if name in self.layers else none.clone() for name in names
        ]

    def _count(self, k: int | None, side: str) -> int:
        width = self.width(side)
        if k is None:
            return width
        if not 1 <= k <= width:
            part = "layer" if side == "D" else "site"
            raise GrasplError(
                f"directions: a {part} has {width} but the constraint wants k = {k}; give k of at least 1 and no more than "
                f"that, or run graspl identify for at least {k}"
            )
        return k

    def _check_sites(self, sites: Sequence[Site]) -> None:
        if not self.sites:
            raise GrasplError(
                "directions: hold layers only, but sites are needed; use ResidualConstraint or ActivationConstraint, or "
                "identify with TopSingular"
            )
        mend = "run graspl identify on an adapter of this model with the same lora.target_modules"
        ours = {site.name: site.shape for site in sites}
        theirs = {name: (each.U.shape[0], each.V.shape[0]) for name, each in self.sites.items()}
        for name in sorted(ours.keys() ^ theirs.keys()):
            where = "the adapter in training" if name in ours else "the directions"
            raise GrasplError(
                f"directions: made for {len(theirs)} sites, the adapter has {len(ours)}; e.g. {name} is only in {where}; "
                f"{mend}"
            )
        for name, shape in ours.items():
            if theirs[name] != shape:
                raise GrasplError(
                    f"directions: {name} was made for a weight {theirs[name]}, this model's is {shape}; {mend}"
                )


def _contiguous(parts: Iterable[Tensor]) -> list[Tensor]:
    return [part.contiguous() for part in parts]


def _flag(metadata: dict[str, str], key: str) -> bool | None:
    return metadata[key] == "true" if key in metadata else None
