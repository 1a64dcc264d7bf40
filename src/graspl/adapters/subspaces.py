"""What the updates of several adapters have in common, and the adapters that lie between two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.adapters.sites import Site
from graspl.adapters.spectrum import thin_svd
from graspl.errors import GrasplError


@dataclass(frozen=True)
class SharedSubspace:
    """Two updates of one site."""

    cosine: float  # Of the two updates as vectors, -1..1
    # Cosines of the principal angles between the leading output directions, descending, 0..1.
    left: list[float]
    right: list[float]  # The same of the input directions
    chance: float  # Expected mean square of `left` for random subspaces: k / out


def shared_subspace(site: Site, other: Site, *, k: int) -> SharedSubspace:
    """Compare two updates of one site without forming them.

    <dW1, dW2> = s1 s2 tr((B2^T B1) (A1 A2^T)), so the cosine costs O((out + in) r^2). Of the leading singular directions
    k are compared, fewer where the rank is lower.

    Source:
        Principal angles: Bjorck and Golub (1973); between adapters: arXiv:2511.02022.
    """
    norms = [_inner(each, each) for each in (site, other)]
    if min(norms) == 0:
        raise GrasplError(f"{site.name}: an update is zero; give adapters that were trained")
    ours, theirs = (
        thin_svd(each.B.float(), each.A.float(), each.scaling, site=each.name) for each in (site, other)
    )
    width = min(k, len(ours.S), len(theirs.S))
    return SharedSubspace(
        max(-1.0, min(1.0, _inner(site, other) / math.sqrt(norms[0] * norms[1]))),
        angle_cosines(ours.U[:, :width], theirs.U[:, :width]),
        angle_cosines(ours.V[:, :width], theirs.V[:, :width]),
        width / site.shape[0],
    )


def angle_cosines(P: Float[Tensor, "n k"], Q: Float[Tensor, "n k"]) -> list[float]:
    """Return the cosines of the principal angles between two subspaces, given by orthonormal columns; descending."""
    return torch.linalg.svdvals(P.mT.double() @ Q.double()).clamp(0, 1).tolist()


def _inner(site: Site, other: Site) -> float:
    B, A = (x.double() for x in (site.B, site.A))
    B2, A2 = (x.double() for x in (other.B, other.A))
    return site.scaling * other.scaling * float(((B2.mT @ B) * (A2 @ A.mT)).sum())


def interpolated(sites: Sequence[Site], others: Sequence[Site], *, at: float) -> list[Site]:
    """Return sites whose updates are (1 - at) dW + at dW' exactly, at the sum of the ranks.

    A site that only one adapter has counts as zero in the other; another shape of a site is an error.
    """
    known, found = {site.name: site for site in others}, []
    for site in sites:
        other = known.pop(site.name, None)
        if other is None:
            found.append(_scaled(site, 1 - at))
            continue
        if other.shape != site.shape:
            raise GrasplError(f"{site.name}: is {site.shape} in one adapter, {other.shape} in the other")
        parts = _scaled(site, 1 - at), _scaled(other, at)
        A, B = torch.cat([part.A for part in parts]), torch.cat([part.B for part in parts], 1)
        found.append(replace(site, A=A, B=B, scaling=1.0))
    return found + [_scaled(site, at) for site in known.values()]


def _scaled(site: Site, factor: float) -> Site:
    return replace(site, B=site.B * (factor * site.scaling), scaling=1.0)
