"""Inputs for the rows of A, from what sites read on the task's rows and on general text.

S_task and S_general are weighted sums of x x^T over the inputs x of a site, (in, in) (`Moments`). G is the gradient of the
task's loss in its frozen weight, (out, in), at the base model. All is computed in float64.
"""

from typing import Literal

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from graspl.starts.moments import Moments

Kind = Literal["gradient", "contrastive", "difference", "null", "random"]
Inputs = Float[Tensor, "in_ r"]
Square = Float[Tensor, "n n"]


def inputs_of(
    kind: Kind, task: Moments, general: Moments, G: Float[Tensor, "out in_"] | None, r: int, ridge: float
) -> Inputs:
    """Return r orthonormal inputs of a kind (`NullSpaceStart`), (in, r).

    c is the ridge times the mean eigenvalue of S_general.
    """
    if general.whole is not None:
        c = ridge * float(general.whole.diagonal().mean())
        loud = G.double().mT @ G.double() if G is not None else task.whole
        assert loud is not None, "a site has one or the other"
        found = _solved(kind, loud, general.whole, r, c)
    else:
        assert general.sample is not None, "a site has one or the other"
        assert task.sample is not None, "a site has one or the other"
        sides = task.sample.double(), general.sample.double()
        found = (
            _by_samples(kind, *sides, r, ridge) if G is None else _by_outputs(G.double(), sides[1], r, ridge)
        )
    return torch.linalg.qr(found)[0]


def largest_quotients(loud: Square, general: Square, r: int, c: float) -> tuple[Tensor, Tensor]:
    """Return the r inputs that are loudest over general text, (in, r), and their lambdas, (r,), largest first.

    They solve  loud a = lambda (S_general + c I) a,  the maxima of  a^T loud a / a^T (S_general + c I) a;  every a has
    a^T (S_general + c I) a = 1.
    """
    size = len(general)
    held = general + c * torch.eye(size, dtype=general.dtype, device=general.device)
    last = [size - r, size - 1]
    values, vectors = scipy.linalg.eigh(loud.cpu().numpy(), held.cpu().numpy(), subset_by_index=last)
    return torch.from_numpy(vectors[:, ::-1].copy()), torch.from_numpy(values[::-1].copy())


def random_inputs(size: int, r: int, generator: torch.Generator) -> Inputs:
    """Return r random orthonormal inputs, (size, r)."""
    return torch.linalg.qr(torch.randn(size, r, generator=generator, dtype=torch.float64))[0]


def _solved(kind: Kind, loud: Tensor, general: Tensor, r: int, c: float) -> Tensor:
    if kind == "null":
        return _eigenvectors(general, slice(0, r))
    if kind == "difference":
        return _eigenvectors(loud - general, slice(len(loud) - r, len(loud)))
    return largest_quotients(loud, general, r, c)[0]


def _eigenvectors(matrix: Tensor, which: slice) -> Tensor:
    found = scipy.linalg.eigh(matrix.cpu().numpy(), subset_by_index=[which.start, which.stop - 1])[1]
    return torch.from_numpy(found.copy())


def _by_samples(kind: Kind, loud: Tensor, general: Tensor, r: int, ridge: float) -> Tensor:
    """Solve in the span of the sampled tokens, where the solutions lie; no (in, in) matrix is formed.

    (S_general + c I)^-1 is a multiple of the identity off that span, so a solution with a lambda above 0 has no part there.
    With the tokens X (n, in) and X X^T = U L U^T, the columns of Q = X^T U L^-1/2 are an orthonormal basis of the span, and
    X Q = U L^1/2.
    """
    if kind == "null":
        return _outside(general, r)
    X = torch.cat([loud, general])
    values, U = (torch.from_numpy(each) for each in scipy.linalg.eigh((X @ X.mT).cpu().numpy()))
    kept = values > values[-1] * 1e-12
    roots, U = values[kept].sqrt(), U[:, kept]
    ours, theirs = (each.mT @ each for each in (U * roots).split([len(loud), len(general)]))
    c = ridge * float(theirs.trace()) / X.shape[1]
    solved = _solved(kind, ours, theirs, min(r, len(roots)), c)
    found = X.mT @ (U @ (solved / roots[:, None]))
    # Fewer rows than directions: the rest is outside, where neither side has anything
    missing = r - len(roots)
    return found if missing <= 0 else torch.cat([found, _outside(X, missing)], dim=1)


def _by_outputs(G: Tensor, X: Tensor, r: int, ridge: float) -> Tensor:
    """Solve  G^T G a = lambda (S_general + c I) a  as  G (S_general + c I)^-1 G^T u = lambda u, which is (out, out).

    Then a = (S_general + c I)^-1 G^T u. With S_general = X^T X,  c (S_general + c I)^-1 = I - X^T (X X^T + c I)^-1 X.
    """
    c = ridge * float(X.square().sum()) / X.shape[1]
    held = X @ X.mT + c * torch.eye(len(X), dtype=X.dtype, device=X.device)
    whitened = (
        G - torch.cholesky_solve(X @ G.mT, torch.linalg.cholesky(held)).mT @ X
    ) / c  # G (S_general + c I)^-1
    size = len(G)
    last = [max(0, size - r), size - 1]
    values, U = scipy.linalg.eigh((whitened @ G.mT).cpu().numpy(), subset_by_index=last)
    kept = values > values[-1] * 1e-12
    lambdas, U = (torch.from_numpy(each.copy()) for each in (values[kept][::-1], U[:, kept][:, ::-1]))
    found = whitened.mT @ U / lambdas.sqrt()
    missing = r - found.shape[1]
    return found if missing <= 0 else torch.cat([found, _outside(torch.cat([G, X]), missing)], dim=1)


def _outside(X: Tensor, r: int) -> Tensor:
    """Return r orthonormal inputs, always the same, that no token has, (in, r)."""
    drawn = torch.randn(X.shape[1], r, generator=torch.Generator().manual_seed(0), dtype=X.dtype)
    # Twice, as the first time leaves rounding
    span = torch.linalg.qr(X.mT)[0]
    for _ in range(2):
        drawn = drawn - span @ (span.mT @ drawn)
    return torch.linalg.qr(drawn)[0]
