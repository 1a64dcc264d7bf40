"""The residual constraint: nothing new is written along the directions of the residual stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graspl.adapters.residual import layer_names, writers_by_layer
from graspl.adapters.sharding import like
from graspl.adapters.sites import Site
from graspl.constraints.base import FactorConstraint, require_zero_reliance
from graspl.constraints.sharded import Rider, along, project_together
from graspl.directions.basis import Directions
from graspl.errors import GrasplError


@dataclass
class ResidualConstraint(FactorConstraint):
    """h = D^T dW = 0 at every site that writes to the residual stream, with D the directions of its layer, (hidden, k).

    With `read`, dW D = 0 also at every other site of the layer that reads the stream, with D the directions of the layer
    before (what its norm rescales is left out). Each is a write or a read constraint, so both are exact by the same
    proofs: D^T B = 0 gives D^T dW = s (D^T B) A = 0 for any A, A D = 0 gives dW D = s B (A D) = 0 for any B, both are
    linear, and projecting after every step restores them under any optimizer.

    What a layer writes stays in the stream, but to keep it off all later layers' directions too removed no more spill-over
    (docs/method.md).

    Source:
        Own: the residual family of docs/method.md. Eq. 9 of arXiv:2605.27676 with J = D^T.
    """

    k: int | None = 1
    """Directions a layer; None holds all that there are."""
    read: bool = False
    """Hold the readers as well."""

    def __post_init__(self) -> None:
        self._held: list[tuple[int, str, Tensor]] = []

    @property
    def factors(self) -> set[str]:
        """B of writers, and with `read` A of readers."""
        return {"A", "B"} if self.read else {"B"}

    @torch.no_grad()
    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the layers' directions; B must be zero or have nothing along them, A is projected."""
        layers = layer_names(sites)
        bases = dict(zip(layers, directions.layer_bases(layers, k=self.k), strict=True))
        index = {id(site): number for number, site in enumerate(sites)}
        writers = writers_by_layer(sites)
        self._held = []
        for number, layer in enumerate(layers):
            self._held += [(index[id(site)], "B", _on(bases[layer], site, "B")) for site in writers[layer]]
            before = bases[layers[number - 1]] if number else None
            if self.read and before is not None:
                readers = [
                    site for site in sites if site.name.startswith(f"{layer}.") and site not in writers[layer]
                ]
                self._held += [(index[id(site)], "A", _on(before, site, "A")) for site in readers]
        if not any(side == "B" for _, side, _ in self._held):
            raise GrasplError(
                "constraint: no site writes to the residual stream; add o_proj and down_proj to lora.target_modules"
            )
        for number, side, D in self._held:
            site = sites[number]
            self._check_width(site, side, D)
            if side == "B":
                require_zero_reliance(site, along([(site.B, D)])[0], site.B.norm())
            else:
                project_together([(site.A.mT, D)])

    @staticmethod
    def _check_width(site: Site, side: str, D: Tensor) -> None:
        width = site.shape[0] if side == "B" else site.shape[1]
        if D.shape[0] != width:
            raise GrasplError(
                f"directions: of a residual stream of width {D.shape[0]}, but {site.name} is {site.shape}; run graspl "
                "identify on an adapter of this model"
            )

    @torch.no_grad()
    def project_gradients(self, sites: Sequence[Site], rider: Rider | None = None) -> None:
        """G_B <- G_B - D (D^T G_B) at writers, G_A <- G_A - (G_A d) d^T at readers."""
        grads = [(getattr(sites[number], side).grad, side, D) for number, side, D in self._held]
        project_together([(g if side == "B" else g.mT, D) for g, side, D in grads if g is not None], rider)

    @torch.no_grad()
    def project_step(self, sites: Sequence[Site]) -> None:
        """B <- B - D (D^T B) at writers, A <- A - (A d) d^T at readers."""
        project_together(
            [(sites[number].B if side == "B" else sites[number].A.mT, D) for number, side, D in self._held]
        )


def _on(D: Tensor, site: Site, side: str) -> Tensor:
    dtype = torch.promote_types(site.B.dtype, torch.float32)
    return like(D.to(device=site.B.device, dtype=dtype).contiguous(), site.B, split=side == "B")
