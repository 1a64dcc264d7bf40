"""Thin singular value decomposition of a LoRA update, from its factors only."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.errors import NonFiniteAdapterError


class ThinSVD(NamedTuple):
    """Singular value decomposition ``dW = U diag(S) V^T`` of one site's update."""

    U: Float[Tensor, "out m"]  # (out, m) left singular vectors, what the update writes; m = min(out, in, r)
    S: Float[Tensor, " m"]  # (m,) singular values, descending
    V: Float[Tensor, "in_ m"]  # (in, m) right singular vectors, what the update reads


def thin_svd(
    B: Float[Tensor, "out r"], A: Float[Tensor, "r in_"], scaling: float, *, site: str = "adapter"
) -> ThinSVD:
    """Decompose an update ``dW = s B A`` without forming it.

    QR of B and of A^T leaves an (r, r) problem: O((out + in) r^2), not O(out in min(out, in)). The sign of a pair
    (u, v) is arbitrary.

    Args:
        B: (out, r) up-projection; computed in float32 or, if it is wider, in its own dtype.
        A: (r, in) down-projection.
        scaling: s = alpha / r, or alpha / sqrt(r) for rsLoRA; it has no sign of its own in S.
        site: name used in the error message.

    Raises:
        NonFiniteAdapterError: a factor has NaN or inf, or their product would.

    Source:
        Own derivation (docs/method.md, "Thin SVD"). The paper does not say how it decomposes.
    """
    if not (torch.isfinite(B).all() and torch.isfinite(A).all()):
        raise NonFiniteAdapterError(f"{site}: the factors hold NaN or inf; train with a lower learning rate")
    dtype = torch.promote_types(B.dtype, torch.float32)
    Qb, Rb = torch.linalg.qr(B.to(dtype))  # (out, p), (p, r) with p = min(out, r)
    Qa, Ra = torch.linalg.qr(A.to(dtype).mT)  # (in, q), (q, r) with q = min(in, r)
    middle = scaling * Rb @ Ra.mT  # (p, q)
    if not torch.isfinite(middle).all():
        raise NonFiniteAdapterError(f"{site}: B A overflows; train with a lower learning rate")
    U, S, Vh = torch.linalg.svd(middle, full_matrices=False)  # (p, m), (m,), (m, q)
    return ThinSVD(Qb @ U, S, Qa @ Vh.mT)
