"""A start that reads given directions alone."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from graspl.adapters.sharding import like
from graspl.host import Host
from graspl.starts.base import Start


@dataclass
class DirectionsStart(Start):
    """The rows of A begin as the first r right directions of each site, and B is zero.

    With A frozen, the update reads nothing outside the span of these directions, whatever the optimizer does.

    Source:
        Own. Starting A from a chosen basis: CorDA, arXiv:2406.05223.
    """

    train_A: bool = False
    """Whether A is trained; False keeps the update in the span."""

    needs_directions: ClassVar[bool] = True

    @torch.no_grad()
    def begin(self, host: Host) -> None:
        """Set A of every site; directions of other sites, or fewer than the rank, are refused."""
        assert host.directions_in_use is not None, "LoRALitModule finds directions first"
        ranks = {site.name: site.A.shape[0] for site in host.sites}
        host.directions_in_use.bases(host.sites, side="V", k=max(ranks.values()))  # says what does not fit
        for site in host.sites:
            V = host.directions_in_use.sites[site.name].V[:, : ranks[site.name]]
            rows = V.mT.contiguous().to(site.A.device, site.A.dtype)
            site.A.copy_(like(rows, site.A, split=True))
