"""Post-hoc transforms: train naively, then change the finished update."""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from graspl.adapters.reliance import update_norm
from graspl.adapters.spectrum import thin_svd
from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule


class FinishedLitModule(LoRALitModule, ABC):
    """Naive LoRA whose finished factors are changed before they are validated or saved; training never sees it.

    A validation inside a fit is of the changed factors, too, so the trade-off curve is that of the transform.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._trained: list[Tensor] = []

    @abstractmethod
    def finish(self) -> None:
        """Change the factors of `self.sites` in place."""

    @property
    def _factors(self) -> list[Tensor]:
        return [p for site in self.sites for p in (site.A, site.B)]

    @torch.no_grad()
    def change(self) -> None:
        """Keep the trained factors and change them; `restore` puts them back."""
        self._trained = [p.detach().clone() for p in self._factors]
        self.finish()

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what `change` kept, where it was called."""
        for p, value in zip(self._factors, self._trained, strict=bool(self._trained)):
            p.copy_(value)
        self._trained = []

    def on_validation_epoch_start(self) -> None:
        """Change the factors before a validation inside a fit; an adapter that was saved is changed already."""
        super().on_validation_epoch_start()
        if self.trainer.state.fn == "fit":
            self.change()

    def on_validation_epoch_end(self) -> None:
        """Log, then go on training from where it was."""
        super().on_validation_epoch_end()
        self.restore()

    def adapter_state(self) -> dict[str, Tensor]:
        """Return the adapter's tensors, changed."""
        self.change()
        # Copies: on the CPU the tensors are the live factors, which are put back
        state = {name: tensor.clone() for name, tensor in super().adapter_state().items()}
        self.restore()
        return state


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

    def finish(self) -> None:
        """Scale each site's B."""
        assert self.model is not None, "configure_model comes first"
        weights = dict(self.model.get_base_model().named_parameters())
        moved = [
            update_norm(site.B, site.A, site.scaling)
            / float(weights[f"{site.name}.base_layer.weight"].detach().float().norm())
            for site in self.sites
        ]
        rms = math.sqrt(math.fsum(each**2 for each in moved) / len(moved))
        for site, each in zip(self.sites, moved, strict=True):
            site.B.mul_(self.share * rms / each if each else 1.0)


class SpectralLitModule(FinishedLitModule):
    """The finished update with a part of each site's spectrum cut off.

    Args:
        directions_kept: singular directions of each site that stay.
        part: whether those at the `top` of the spectrum stay, or those of its `tail`.
        **kwargs: as in LoRALitModule.

    Source:
        Truncating the tail: arXiv:2606.07596. Dropping the top is its reverse, and close to direct subtraction.
    """

    def __init__(self, directions_kept: int = 8, part: Literal["top", "tail"] = "top", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if directions_kept < 0:
            raise GrasplError(f"model.directions_kept: {directions_kept} is below 0")
        self.directions_kept = directions_kept
        self.part = part

    def finish(self) -> None:
        """Project B on the kept output directions: U U^T B A is the truncated decomposition."""
        for site in self.sites:
            U = thin_svd(site.B.detach().float(), site.A.detach().float(), site.scaling, site=site.name).U
            dropped = max(0, U.shape[1] - self.directions_kept)
            kept = U[:, : self.directions_kept] if self.part == "top" else U[:, dropped:]
            kept = kept.to(site.B)
            site.B.copy_(kept @ (kept.mT @ site.B))
