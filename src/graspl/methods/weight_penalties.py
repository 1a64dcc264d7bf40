"""Rivals that keep the update small, or off given directions, by a penalty on the weights."""

from typing import Any, Literal

import torch
from torch import Tensor

from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule


class L2ToStartLitModule(LoRALitModule):
    """LoRA with a penalty on the size of the update itself: loss + weight * sum over sites of ||s B A||_F^2.

    The update's norm, not the factors': scaling one factor up and the other down changes nothing.

    Args:
        weight: of the squared norm; 0 trains as LoRA does, bit for bit.
        **kwargs: as in LoRALitModule.

    Source:
        L2-SP, the distance to the pretrained start, arXiv:1802.01483; for a LoRA update W - W0 = s B A.
    """

    def __init__(self, weight: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if weight < 0:
            raise GrasplError(f"model.weight: {weight} is below 0")
        self.weight = weight

    def extra_loss(self, batch: dict[str, Any], logits: Tensor) -> Tensor | None:
        """Return the squared norm, weighed: ||B A||_F^2 = tr((B^T B)(A A^T)), without forming B A."""
        if not self.weight:
            return None
        norms = [
            site.scaling**2 * ((site.B.mT @ site.B) * (site.A @ site.A.mT)).sum()
            for site in self.whole_sites()
        ]
        return self.weight * torch.stack([norm.to(self.device) for norm in norms]).sum()


class OrthogonalityLitModule(LoRALitModule):
    """LoRA with a penalty on what lies along given directions of each site: the soft form of the write or read constraint.

    loss + weight * sum over sites of ||U^T B||_F^2 (`write`) or ||A V||_F^2 (`read`).

    Args:
        directions: a directions file with `U`, `S`, `V` by site (`graspl identify` with its default method).
        side: `read` is O-LoRA's own.
        k: directions a site.
        weight: 0 trains as LoRA does, bit for bit.
        **kwargs: as in LoRALitModule.

    Source:
        O-LoRA, arXiv:2310.14152, penalises |A_i A_t^T| against the adapters of earlier tasks; here the earlier adapter is the
        naive one, by its leading singular directions, and squares are summed.
    """

    def __init__(
        self,
        directions: str | None = None,
        side: Literal["read", "write"] = "read",
        k: int = 1,
        weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(directions=directions, **kwargs)
        if weight < 0:
            raise GrasplError(f"model.weight: {weight} is below 0")
        self.side = side
        self.k = k
        self.weight = weight
        self._bases: list[Tensor] = []

    def on_train_start(self) -> None:
        """Take the directions of the adapter's sites.

        Raises:
            GrasplError: none are given, or they do not fit.
        """
        super().on_train_start()
        if self._loaded_directions is None:
            raise GrasplError("model.directions: the penalty needs a directions file; run graspl identify")
        side = "V" if self.side == "read" else "U"
        self._bases = self._loaded_directions.bases(self.whole_sites(), side=side, k=self.k)

    def extra_loss(self, batch: dict[str, Any], logits: Tensor) -> Tensor | None:
        """Return the overlap, weighed."""
        if not self.weight:
            return None
        overlaps = [
            (site.A @ D if self.side == "read" else D.mT @ site.B).square().sum()
            for site, D in zip(self.whole_sites(), self._bases, strict=True)
        ]
        return self.weight * torch.stack([each.to(self.device) for each in overlaps]).sum()
