"""The finished update without a part of its spectrum."""

from dataclasses import dataclass
from typing import Literal

from graspl.adapters.spectrum import thin_svd
from graspl.errors import GrasplError
from graspl.host import Host
from graspl.transforms.base import Transform


@dataclass
class Truncate(Transform):
    """The finished update with a part of each site's spectrum cut off.

    Source:
        Truncating the tail: arXiv:2606.07596. Dropping the top is its reverse, and close to direct subtraction.
    """

    keep: int = 8
    """Singular directions of each site that stay."""
    part: Literal["top", "tail"] = "top"
    """Whether those at the top of the spectrum stay, or those of its tail."""

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise GrasplError(f"Truncate.keep: {self.keep} is below 0")

    def apply(self, host: Host) -> None:
        """Project B on the kept output directions: U U^T B A is the truncated decomposition."""
        for site in host.sites:
            U = thin_svd(site.B.detach().float(), site.A.detach().float(), site.scaling, site=site.name).U
            dropped = max(0, U.shape[1] - self.keep)
            kept = U[:, : self.keep] if self.part == "top" else U[:, dropped:]
            kept = kept.to(site.B)
            site.B.copy_(kept @ (kept.mT @ site.B))
