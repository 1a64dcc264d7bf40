"""Directions: orthonormal bases of sites and of layers, with the spectra they came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from graspl.adapters.sharding import like
from graspl.adapters.sites import Site
from graspl.errors import GrasplError

FORMAT = "graspl-directions-1"
SOME_LAYERS = "some_layers"
"""Metadata key, `true` where only some of the model's layers have directions and the others are to be left alone."""
SIGNED, FILTERS = "signed", "filters"
"""Metadata keys, `true` or `false`: what `Identification` says of its directions."""
_SITE, _LAYER = ("U", "S", "V"), ("D", "S")


class SiteDirections(NamedTuple):
    """Directions of one site."""

    U: Float[Tensor, "out k"]
    """(out, k) orthonormal columns: what the spurious update writes."""
    S: Float[Tensor, " m"]
    """(m,) singular values of the whole update, descending; all, not only the first k."""
    V: Float[Tensor, "in_ k"]
    """(in, k) orthonormal columns: what the spurious update reads."""


class LayerDirections(NamedTuple):
    """Directions in the residual stream after one decoder layer."""

    D: Float[Tensor, "hidden k"]
    """(hidden, k) orthonormal columns."""
    S: Float[Tensor, " m"]
    """(m,) strengths, descending; all that were found, not only the first k."""


@dataclass(frozen=True)
class Directions:
    """Directions of sites, of layers or of both, and where they came from."""

    sites: dict[str, SiteDirections]
    """By module name, e.g. `model.layers.0.self_attn.q_proj`; what write, read and pair constraints hold."""
    metadata: dict[str, str] = field(default_factory=dict)
    """`base_model`, `adapter`, `adapter_sha256`, `identification`, `k`, `graspl`, ..."""
    layers: dict[str, LayerDirections] = field(default_factory=dict)
    """By module name, e.g. `model.layers.0`; what residual and activation constraints hold."""

    def __post_init__(self) -> None:
        # Constraints take the bases as they lie here: a view would keep what it was cut from, and be copied by each of them
        sites = {
            name: SiteDirections(*(part.contiguous() for part in each)) for name, each in self.sites.items()
        }
        layers = {
            name: LayerDirections(*(part.contiguous() for part in each)) for name, each in self.layers.items()
        }
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
        sites = {f"{name}.{part}": getattr(site, part) for name, site in self.sites.items() for part in _SITE}
        layers = {
            f"{name}.{part}": getattr(layer, part) for name, layer in self.layers.items() for part in _LAYER
        }
        return {name: tensor.detach().cpu().contiguous() for name, tensor in (sites | layers).items()}

    def save(self, path: Path) -> None:
        """Write one safetensors file: the tensors and the metadata.

        Args:
            path: the file; give a temporary name and rename (`graspl.runs.atomic_path`).
        """
        save_file(self.tensors(), path, metadata={**self.metadata, "format": FORMAT})

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], metadata: dict[str, str], origin: str) -> "Directions":
        """Sort tensors by site and layer, and check them.

        Args:
            tensors: as `tensors` gives them.
            metadata: where they came from.
            origin: named in errors.

        Raises:
            GrasplError: a part is missing, or a basis is not orthonormal or not finite.
        """
        sites, layers = _unpack(origin, tensors)
        return cls(sites, metadata, layers)

    @classmethod
    def load(cls, path: str | Path) -> "Directions":
        """Read what `save` wrote.

        Raises:
            GrasplError: no such file, not such a file, or a basis that is not orthonormal or not finite.
        """
        metadata = read_metadata(Path(path))
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise GrasplError(f"{path}: not readable as directions ({error}); run graspl identify") from error
        return cls.from_tensors(tensors, metadata, str(path))

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
            GrasplError: they were made for other sites, shapes or fewer directions.
        """
        k = self._count(k, side)
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
            held = D[:, :k].to(device=site.B.device, dtype=dtype).contiguous()
            bases.append(like(held, site.B, split=side == "U"))
        return bases

    def layer_bases(self, names: Sequence[str], *, k: int | None) -> list[Tensor]:
        """Return the first k directions of each layer, (hidden, k), in the order given.

        Where only some layers have directions (`SOME_LAYERS`), the others' are (hidden, 0).

        Args:
            names: of all decoder layers of the model in training, as `decoder_layers` gives them.
            k: how many; None takes all that every layer has.

        Raises:
            GrasplError: there are none, fewer, or they are of other layers.
        """
        k = self._count(k, "D")
        if not self.layers:
            raise GrasplError(
                "directions: hold sites only, this constraint wants layers; let the fit find them "
                "(model.directions: null), or make some with graspl identify --method graspl.activations.NaturalDirections "
                "--method.text FILE"
            )
        # A file of fewer layers is another model's, unless it says that it leaves some out
        partly = self.metadata.get(SOME_LAYERS) == "true" and set(self.layers) <= set(names)
        if set(names) != set(self.layers) and not partly:
            odd = sorted(set(names) ^ set(self.layers))[0]
            raise GrasplError(
                f"directions: made for {len(self.layers)} layers, the model has {len(names)}, e.g. {odd} is only in one; "
                "run graspl identify on an adapter of this model"
            )
        if self.width("D") < k:
            raise GrasplError(
                f"directions: a layer has {self.width('D')} but the constraint wants k = {k}; lower it, or run graspl "
                f"identify for at least {k}"
            )
        none = next(iter(self.layers.values())).D[:, :0]
        return [
            self.layers[name].D[:, :k].contiguous() if name in self.layers else none.clone() for name in names
        ]

    def _count(self, k: int | None, side: str) -> int:
        if k is not None and k < 1:
            raise GrasplError(f"constraint.k: {k} is below 1; give how many directions shall be held")
        return self.width(side) if k is None else k

    def _check_sites(self, sites: Sequence[Site]) -> None:
        if not self.sites:
            raise GrasplError(
                "directions: hold layers only, this constraint wants sites; use ResidualConstraint or ActivationConstraint, "
                "or identify with TopSingular"
            )
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


def _flag(metadata: dict[str, str], key: str) -> bool | None:
    return metadata[key] == "true" if key in metadata else None


def read_metadata(path: Path) -> dict[str, str]:
    """Return a directions file's metadata, without its tensors.

    Raises:
        GrasplError: no such file, or not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise GrasplError(f"{path}: not readable as directions ({error}); run graspl identify") from error
    if metadata.get("format") != FORMAT:
        raise GrasplError(f"{path}: holds no graspl directions; make some with graspl identify")
    return {key: value for key, value in metadata.items() if key != "format"}


def _unpack(
    path: str, tensors: dict[str, Tensor]
) -> tuple[dict[str, SiteDirections], dict[str, LayerDirections]]:
    """Sort the tensors of a file by site and layer."""
    sites, layers = {}, {}
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        parts = {key.rpartition(".")[2]: tensors[key] for key in tensors if key.rpartition(".")[0] == name}
        if set(parts) == set(_SITE):
            sites[name] = SiteDirections(**parts)
        elif set(parts) == set(_LAYER):
            layers[name] = LayerDirections(**parts)
        else:
            raise GrasplError(
                f"{path}: {name} has {', '.join(sorted(parts))}; a site has U, S, V and a layer D, S; make the file again "
                "with graspl identify"
            )
        for part in set(parts) - {"S"}:
            _check_basis(f"{path}: {name}.{part}", parts[part])
    if not sites and not layers:
        raise GrasplError(f"{path}: holds no directions; make the file again with graspl identify")
    return sites, layers


def _check_basis(where: str, D: Tensor) -> None:
    # 1e-3 lets bases stored in half precision pass and nothing that is no basis
    gram = D.double().mT @ D.double() if D.ndim == 2 else torch.full((1, 1), torch.nan)
    if not torch.allclose(gram, torch.eye(gram.shape[0], dtype=torch.float64), atol=1e-3):
        raise GrasplError(
            f"{where}: the columns are not orthonormal; make the file again with graspl identify"
        )
