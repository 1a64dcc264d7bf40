"""Keep the update off given directions, softly."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from graspl.host import Host
from graspl.penalties.base import Penalty


@dataclass
class OrthogonalityPenalty(Penalty):
    """What lies along given directions of each site, the soft form of the write or read constraint.

    The sum over sites of ||U^T B||_F^2 (`write`) or ||A V||_F^2 (`read`).

    Source:
        O-LoRA, arXiv:2310.14152, penalises |A_i A_t^T| against the adapters of earlier tasks. Here the earlier adapter is the
        naive one, by its leading singular directions, and squares are summed.
    """

    weight: float = 1.0
    """Of the sum of squares."""
    side: Literal["read", "write"] = "read"
    """`read` is O-LoRA's own."""
    k: int = 1
    """Directions a site."""

    needs_directions: ClassVar[bool] = True

    def begin(self, host: Host) -> None:
        """Take the directions of the adapter's sites."""
        assert host.directions_in_use is not None, "LoRALitModule finds directions first"
        side = "V" if self.side == "read" else "U"
        self._bases = host.directions_in_use.bases(host.whole_sites(), side=side, k=self.k)

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the overlap."""
        overlaps = [
            (site.A @ D if self.side == "read" else D.mT @ site.B).square().sum()
            for site, D in zip(host.whole_sites(), self._bases, strict=True)
        ]
        return torch.stack([each.to(host.device) for each in overlaps]).sum()
