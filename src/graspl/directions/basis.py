"""Directions: orthonormal bases of sites and of layers, with the spectra they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import torch
from safetensors.torch import save_file
from torch import Tensor

from graspl.adapters.sharding import like
from graspl.adapters.sites import Site
from graspl.directions.file import FORMAT, LayerDirections, SiteDirections, checked_parts, read_file
from graspl.errors import GrasplError

# Metadata key, `true` where only some layers of the model have directions and the others stay untouched.
SOME_LAYERS = "some_layers"
# Metadata keys, `true` or `false`: what `Identification` says of its directions.
SIGNED, FILTERS = "signed", "filters"
_AGAIN = "run graspl identify on an adapter of this model, with the same lora.target_modules"
_FLAGS = {"true": True, "false": False, None: None}


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
        sites = {name: SiteDirections(*map(Tensor.contiguous, each)) for name, each in self.sites.items()}
        layers = {name: LayerDirections(*map(Tensor.contiguous, each)) for name, each in self.layers.items()}
        object.__setattr__(self, "sites", sites)
        object.__setattr__(self, "layers", layers)

    @property
    def is_signed(self) -> bool | None:
        """Whether a step forward along a direction raises the factor; None where the file does not say."""
        return _FLAGS.get(self.metadata.get(SIGNED))

    @property
    def are_filters(self) -> bool | None:
        """Whether a fit pushes along them, not the base model itself; None where the file does not say."""
        return _FLAGS.get(self.metadata.get(FILTERS))

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
        """Take what `tensors` returned, checked; `origin` is named in errors."""
        sites, layers = checked_parts(tensors, origin)
        return cls(sites, metadata, layers)

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read what `save` wrote.

        Raises:
            GrasplError: it is not a directions file, or a basis is not orthonormal or not finite.
        """
        metadata, tensors = read_file(Path(path))
        return cls.from_tensors(tensors, metadata, str(path))

    def require_base_model(self, base_model: str) -> None:
        """Raise GrasplError if the metadata name another base model, by the last part of its name or folder."""
        theirs = self.metadata.get("base_model")
        if theirs and PurePath(theirs).name != PurePath(base_model).name:
            raise GrasplError(f"directions: found on {theirs}, this is {base_model}; {_AGAIN}")

    def width(self, side: str) -> int:
        """Return how many directions of a side (`U` or `V`) every site has, or (`D`) every layer; 0 without any."""
        held = self.layers if side == "D" else self.sites
        return min((getattr(each, side).shape[1] for each in held.values()), default=0)

    def bases(self, sites: Sequence[Site], *, side: str, k: int | None) -> list[Tensor]:
        """Return the first k directions of one side for each site, in the sites' order, dtype and device.

        Args:
            sites: of the model in training; where one is sharded, left directions are split over processes as B is.
            side: `U` (out, k) or `V` (in, k).
            k: how many; None takes all that every site has.

        Raises:
            GrasplError: the directions have other sites, other shapes or fewer than k.
        """
        self._check_sites(sites)
        k, bases = self._count(k, side), []
        for site in sites:
            D: Tensor = getattr(self.sites[site.name], side)
            dtype = torch.promote_types(site.B.dtype, torch.float32)
            held = D[:, :k].to(device=site.B.device, dtype=dtype).contiguous()
            bases.append(like(held, site.B, split=side == "U"))
        return bases

    def layer_bases(self, names: Sequence[str], *, k: int | None) -> list[Tensor]:
        """Return the first k directions of each layer, (hidden, k); (hidden, 0) where a file leaves layers out.

        Args:
            names: of all decoder layers of the model in training (`decoder_layers`).
            k: how many; None takes all that every layer has.

        Raises:
            GrasplError: there are no layers, other layers, or fewer than k directions.
        """
        if not self.layers:
            fix = "identify with graspl.activations.NaturalDirections, or let the fit find them"
            raise GrasplError(f"directions: hold sites only, but layers are needed; {fix}")
        # A file with fewer layers belongs to another model, unless it says that it leaves some out
        partly = self.metadata.get(SOME_LAYERS) == "true" and set(self.layers) <= set(names)
        if set(names) != set(self.layers) and not partly:
            odd = sorted(set(names) ^ set(self.layers))[0]
            sizes = f"{len(self.layers)} layers, the model has {len(names)}; {odd} is only in one"
            raise GrasplError(f"directions: made for {sizes}; {_AGAIN}")
        k = self._count(k, "D")
        none = LayerDirections(*(part[..., :0] for part in next(iter(self.layers.values()))))
        return [self.layers.get(name, none).D[:, :k].clone() for name in names]

    def _count(self, k: int | None, side: str) -> int:
        width = self.width(side)
        if k is None:
            return width
        if not 1 <= k <= width:
            part = "layer" if side == "D" else "site"
            raise GrasplError(f"directions: a {part} has {width}, the constraint wants k = {k}; lower k")
        return k

    def _check_sites(self, sites: Sequence[Site]) -> None:
        if not self.sites:
            fix = "use ResidualConstraint, or identify with TopSingular"
            raise GrasplError(f"directions: hold layers only, but sites are needed; {fix}")
        ours = {site.name: site.shape for site in sites}
        theirs = {name: (each.U.shape[0], each.V.shape[0]) for name, each in self.sites.items()}
        for name in sorted(ours.keys() ^ theirs.keys()):
            where = "the adapter in training" if name in ours else "the directions"
            only = f"{name} is only in {where}"
            raise GrasplError(f"directions: made for {len(theirs)} sites; {only}; {_AGAIN}")
        for name, shape in ours.items():
            if theirs[name] != shape:
                both = f"made for a weight {theirs[name]}, this model's is {shape}"
                raise GrasplError(f"directions: {name} was {both}; {_AGAIN}")
