"""A rival: project the finished update on the subspace that alignment wrote."""

from typing import Any

import torch
from torch import Tensor

from graspl.adapters.base_model import load_base_model
from graspl.adapters.sharding import like
from graspl.errors import GrasplError
from graspl.methods.finished import FinishedLitModule


class SafeLoRALitModule(FinishedLitModule):
    """Naive LoRA whose finished update is projected, at sites where it points away from the alignment update.

    With V = W_aligned - W_unaligned of a site, C = V V^T / ||V||_F: where cos(C dW, dW) is below the threshold, dW
    becomes C dW.

    Args:
        unaligned_model: the model before it was tuned to follow instructions; `base_model` is the one after.
        threshold: 1 projects every site, -1 none.
        **kwargs: as in LoRALitModule.

    Source:
        SafeLoRA, arXiv:2405.16833, its fast projection. Its code also offers a number of layers in place of the threshold.
    """

    def __init__(self, unaligned_model: str | None = None, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unaligned_model = unaligned_model
        self.threshold = threshold
        self._alignment: dict[str, Tensor] = {}

    def on_fit_start(self) -> None:
        """Take V of every site from the two models' weights.

        Raises:
            GrasplError: no unaligned model is named, or it has other shapes.
        """
        super().on_fit_start()
        if self.unaligned_model is None:
            raise GrasplError("model.unaligned_model: names no model; give the one before instruction tuning")
        other = dict(load_base_model(self.unaligned_model, dtype=self.dtype_name).named_parameters())
        for site in self.sites:
            aligned, unaligned = self.frozen_weight(site.name), other.get(f"{site.name}.weight")
            if unaligned is None or unaligned.shape != aligned.shape:
                raise GrasplError(
                    f"model.unaligned_model: {self.unaligned_model} has no {site.name} of this shape"
                )
            self._alignment[site.name] = (aligned.float() - unaligned.to(aligned).float()).to(aligned)

    def finish(self) -> None:
        """Project B, which is to project B A."""
        for site, live in zip(self.whole_sites(), self.sites, strict=True):
            V = self._alignment[site.name].float()
            length = V.norm()
            if length == 0:
                raise GrasplError(
                    f"model.unaligned_model: {site.name} is the same in both models, so nothing was aligned there"
                )
            projected = V @ (V.mT @ site.B.float()) / length  # C B, without forming C
            if _cosine(projected, site.B.float(), site.A.float()) < self.threshold:
                live.B.copy_(like(projected.to(site.B), live.B, split=True))


def _cosine(B: Tensor, other: Tensor, A: Tensor) -> Tensor:
    """Return cos(B A, B' A), (), from the factors; 1 where an update is zero."""
    gram = A @ A.mT
    inner = lambda X, Y: ((X.mT @ Y) * gram).sum()  # noqa: E731
    size = (inner(B, B) * inner(other, other)).clamp_min(0).sqrt()
    return torch.where(size > 0, inner(B, other) / size.clamp_min(1e-30), torch.ones_like(size))
