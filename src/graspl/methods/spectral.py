"""A rival: the finished update without a part of its spectrum."""

from typing import Any, Literal

from graspl.adapters.spectrum import thin_svd
from graspl.errors import GrasplError
from graspl.methods.finished import FinishedLitModule


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
