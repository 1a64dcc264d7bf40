"""The finished update, projected on the subspace that alignment wrote."""

from dataclasses import dataclass

import torch
from torch import Tensor

from graspl.adapters.base_model import load_base_model
from graspl.adapters.sharding import like
from graspl.errors import GrasplError
from graspl.host import Host
from graspl.transforms.base import Transform, frozen_weight


@dataclass
class SafeLoRA(Transform):
    """Projects the update at sites where it points away from the alignment update.

    With V = W_aligned - W_unaligned of a site and C = V V^T / ||V||_F: where cos(C dW, dW) is below the threshold, dW becomes
    C dW.

    Source:
        SafeLoRA, arXiv:2405.16833, its fast projection. Its code also offers a number of layers instead of the threshold.
    """

    unaligned_model: str
    """The model before it was tuned to follow instructions; `model.base_model` is the one after."""
    threshold: float = 0.5
    """1 projects every site, -1 none."""

    def prepare(self, host: Host) -> None:
        """Take V of every site from the two models' weights."""
        other = dict(load_base_model(self.unaligned_model, dtype=host.options.dtype).named_parameters())
        self._alignment: dict[str, Tensor] = {}
        for site in host.sites:
            aligned, unaligned = frozen_weight(host, site.name), other.get(f"{site.name}.weight")
            if unaligned is None or unaligned.shape != aligned.shape:
                raise GrasplError(
                    f"SafeLoRA.unaligned_model: no such {site.name}; name a model of these shapes"
                )
            self._alignment[site.name] = (aligned.float() - unaligned.to(aligned).float()).to(aligned)

    def apply(self, host: Host) -> None:
        """Project B, which is to project B A."""
        for site, live in zip(host.whole_sites(), host.sites, strict=True):
            V = self._alignment[site.name].float()
            length = V.norm()
            if length == 0:
                raise GrasplError(f"SafeLoRA.unaligned_model: {site.name} is the same in both; name another")
            projected = V @ (V.mT @ site.B.float()) / length  # C B, without forming C
            if _cosine(projected, site.B.float(), site.A.float()) < self.threshold:
                live.B.copy_(like(projected.to(site.B), live.B, split=True))


def _cosine(B: Tensor, other: Tensor, A: Tensor) -> Tensor:
    """Return cos(B A, B' A), (), from the factors; 1 where an update is zero."""
    gram = A @ A.mT
    inner = lambda X, Y: ((X.mT @ Y) * gram).sum()  # noqa: E731
    size = (inner(B, B) * inner(other, other)).clamp_min(0).sqrt()
    return torch.where(size > 0, inner(B, other) / size.clamp_min(1e-30), torch.ones_like(size))
