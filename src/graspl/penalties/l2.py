"""Keep the update small."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graspl.host import Host
from graspl.penalties.base import Penalty


@dataclass
class L2Penalty(Penalty):
    """The squared size of the update, the sum over sites of ||s B A||_F^2.

    It is the update's norm, not the factors': scaling one factor up and the other down changes nothing.

    Source:
        L2-SP, the distance to the pretrained start, arXiv:1802.01483; for a LoRA update W - W0 = s B A.
    """

    weight: float = 1e-3
    """Of the squared norm."""

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return ||B A||_F^2 = tr((B^T B)(A A^T)) summed over sites, without forming B A."""
        norms = [
            site.scaling**2 * ((site.B.mT @ site.B) * (site.A @ site.A.mT)).sum()
            for site in host.whole_sites()
        ]
        return torch.stack([norm.to(host.device) for norm in norms]).sum()
