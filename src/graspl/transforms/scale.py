"""The finished update averaged with the base model."""

import math
from dataclasses import dataclass

from graspl.adapters.reliance import update_norm
from graspl.host import Host
from graspl.transforms.base import Transform, frozen_weight


@dataclass
class Scale(Transform):
    """The finished update times a factor: between the base model and the fine-tune.

    Source:
        WiSE-FT, arXiv:2109.01903: W0 + share (W - W0), which for LoRA is a scale.
    """

    share: float = 0.5
    """Of the update that stays; 0 is the base model, 1 the fine-tune."""

    def apply(self, host: Host) -> None:
        """Scale B."""
        for site in host.sites:
            site.B.mul_(self.share)


@dataclass
class Balance(Transform):
    """The finished update with every site moved equally far, relative to its weight: ||dW_i|| / ||W_i|| = share * rms.

    rms is the root mean square of ||dW_i|| / ||W_i|| over the sites, so `share` 1 leaves the whole update about as large as
    it is, and takes from the sites that a fine-tune changes most.

    Source:
        Own reading of balanced averaging of base and fine-tune, between WiSE-FT (arXiv:2109.01903), which has one ratio for
        all, and averaging with a ratio a layer (arXiv:2309.06256), which has to choose them.
    """

    share: float = 1.0
    """Of the update's size that stays."""

    def prepare(self, host: Host) -> None:
        """Measure the frozen weights."""
        self._frozen_norms = [float(frozen_weight(host, site.name).float().norm()) for site in host.sites]

    def apply(self, host: Host) -> None:
        """Scale each site's B."""
        moved = [
            update_norm(site.B, site.A, site.scaling) / norm
            for site, norm in zip(host.whole_sites(), self._frozen_norms, strict=True)
        ]
        rms = math.sqrt(math.fsum(each**2 for each in moved) / len(moved))
        for site, each in zip(host.sites, moved, strict=True):
            site.B.mul_(self.share * rms / each if each else 1.0)
