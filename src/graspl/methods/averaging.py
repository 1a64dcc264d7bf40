"""Rivals: the finished update averaged with the base model."""

import math
from typing import Any

from graspl.adapters.reliance import update_norm
from graspl.methods.finished import FinishedLitModule


class ScaledLitModule(FinishedLitModule):
    """The finished update times a factor: between the base model and the fine-tune.

    Args:
        share: of the update that stays; 0 is the base model, 1 the fine-tune.
        **kwargs: as in LoRALitModule.

    Source:
        WiSE-FT, arXiv:2109.01903: W0 + share (W - W0), which for LoRA is a scale.
    """

    def __init__(self, share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def finish(self) -> None:
        """Scale B."""
        for site in self.sites:
            site.B.mul_(self.share)


class BalancedLitModule(ScaledLitModule):
    """The finished update with every site moved equally far, relative to its own weight: ||dW_i|| / ||W_i|| = share * rms.

    rms is the root mean square of ||dW_i|| / ||W_i|| over the sites, so `share` 1 leaves the whole update about as large as
    it is, and takes from the sites that a fine-tune leans on most.

    Args:
        **kwargs: as in ScaledLitModule.

    Source:
        Own reading of balanced averaging of base and fine-tune, between WiSE-FT (arXiv:2109.01903), which has one ratio for
        all, and averaging with a ratio a layer (arXiv:2309.06256), which has to choose them.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._frozen_norms: list[float] = []

    def on_fit_start(self) -> None:
        """Measure the frozen weights, before anything is trained.

        Raises:
            GrasplError: no process has whole ones.
        """
        super().on_fit_start()
        self._frozen_norms = [float(self.frozen_weight(site.name).float().norm()) for site in self.sites]

    def finish(self) -> None:
        """Scale each site's B."""
        moved = [
            update_norm(site.B, site.A, site.scaling) / norm
            for site, norm in zip(self.whole_sites(), self._frozen_norms, strict=True)
        ]
        rms = math.sqrt(math.fsum(each**2 for each in moved) / len(moved))
        for site, each in zip(self.sites, moved, strict=True):
            site.B.mul_(self.share * rms / each if each else 1.0)
