"""Reliance: how much of an update lies along given directions."""

import torch
from jaxtyping import Float
from torch import Tensor


def update_norm(B: Float[Tensor, "out r"], A: Float[Tensor, "r in_"], scaling: float = 1.0) -> float:
    """Return ``||s B A||_F`` of B (out, r) and A (r, in) without forming the product: sqrt(tr(B^T B  A A^T)), in float64."""
    B, A = B.detach().double(), A.detach().double()
    gram = (B.mT @ B) * (A @ A.mT)  # (r, r); both Gram matrices are symmetric
    return abs(scaling) * float(gram.sum().clamp_min(0).sqrt())


def write_reliance(B: Float[Tensor, "out r"], A: Float[Tensor, "r in_"], D: Float[Tensor, "out k"]) -> float:
    """Return rho = ``||D^T dW||_F / ||dW||_F``, the share of the update written along D, 0..1; 0 for an update of zero.

    Args:
        B: (out, r) up-projection.
        A: (r, in) down-projection.
        D: (out, k) orthonormal columns.

    Source:
        Our reading of the reliance figures of arXiv:2605.27676, whose exact definition we do not know.
    """
    total = update_norm(B, A)
    return update_norm(D.to(B).double().mT @ B.double(), A) / total if total > 0 else 0.0


def read_reliance(B: Float[Tensor, "out r"], A: Float[Tensor, "r in_"], D: Float[Tensor, "in_ k"]) -> float:
    """Return ``||dW D||_F / ||dW||_F``, the share of the update read along D, 0..1; 0 for an update of zero.

    Args as in `write_reliance`, but D is (in, k).

    Source:
        Own: the write side's definition, transposed.
    """
    return write_reliance(A.mT, B.mT, D)


def pair_reliance(
    B: Float[Tensor, "out r"], A: Float[Tensor, "r in_"], U: Float[Tensor, "out k"], V: Float[Tensor, "in_ k"]
) -> float:
    """Return ``||diag(U^T dW V)|| / ||dW||_F``, the share of the update along the k rank-one pairs, 0..1; 0 for zero.

    Args as in `write_reliance`, with orthonormal U (out, k) and V (in, k).

    Source:
        Own (docs/method.md, "Constraint families").
    """
    total = update_norm(B, A)
    if total == 0:
        return 0.0
    B, A = B.detach().double(), A.detach().double()
    along = torch.einsum("ok,or,ri,ik->k", U.to(B), B, A, V.to(A))  # (k,)
    return float(along.norm()) / total
