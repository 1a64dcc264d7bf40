"""The residual constraint: nothing new is written along the directions of the residual stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graspl.adapters import Site, layer_names, writers_by_layer
from graspl.adapters.sharding import like
from graspl.constraints.base import FactorConstraint, HeldFactor
from graspl.directions.basis import Directions
from graspl.errors import GrasplError


@dataclass
class ResidualConstraint(FactorConstraint):
    """h = D^T dW = 0 at every site that writes to the residual stream, with D the directions of its layer, (hidden, k).

    With `read`, dW D = 0 also at every other site of the layer, with D the directions of the layer before (what its norm
    rescales is left out). What a layer writes stays in the stream, but keeping it off all later layers' directions too
    removed no more spill-over (docs/method.md).

    Source:
        Own: the residual family of docs/method.md. Eq. 9 of arXiv:2605.27676 with J = D^T.
    """

    k: int | None = 1
    """Directions a layer; None holds all that there are."""
    read: bool = False
    """Hold the readers as well."""

    @property
    def factors(self) -> set[str]:
        """B of writers, and with `read` A of readers."""
        return {"A", "B"} if self.read else {"B"}

    def held_factors(self, sites: Sequence[Site], directions: Directions) -> list[HeldFactor]:
        """Return B of writers, and with `read` A of readers; an adapter without writers is refused."""
        layers, writers = layer_names(sites), writers_by_layer(sites)
        bases = directions.layer_bases(layers, k=self.k)
        held = []
        for number, site in enumerate(sites):
            layer = next((each for each in layers if site.name.startswith(f"{each}.")), None)
            place = -1 if layer is None else layers.index(layer)
            if layer is not None and any(each is site for each in writers[layer]):
                held.append(_held(number, site, "B", bases[place]))
            elif self.read and place > 0:
                held.append(_held(number, site, "A", bases[place - 1]))
        if not any(each.factor == "B" for each in held):
            raise GrasplError("constraint: no site writes to the stream; target o_proj and down_proj too")
        return held


def _held(number: int, site: Site, factor: Literal["A", "B"], D: Tensor) -> HeldFactor:
    width = site.shape[0] if factor == "B" else site.shape[1]
    if D.shape[0] != width:
        raise GrasplError(f"directions: {D.shape[0]} wide, but {site.name} is {site.shape}; identify again")
    dtype = torch.promote_types(site.B.dtype, torch.float32)
    on = D.to(device=site.B.device, dtype=dtype).contiguous()
    return HeldFactor(number, factor, like(on, site.B, split=factor == "B"))
