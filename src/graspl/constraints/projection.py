"""Orthogonal projections that the constraints are made of."""

from jaxtyping import Float
from torch import Tensor


def project_onto_complement(G: Float[Tensor, "out r"], D: Float[Tensor, "out k"]) -> Float[Tensor, "out r"]:
    """Return the matrix nearest to G which has nothing along D.

    argmin_X ||X - G||_F  subject to  D^T X = 0,   that is   X = G - D (D^T G).

    Args:
        G: (out, r) gradient or factor B, any floating dtype.
        D: (out, k) orthonormal columns; k = 0 leaves G as it is.

    Source:
        Eq. 9 of arXiv:2605.27676 with J = D^T; that it acts on B is our reading.
    """
    return G - D @ (D.mT @ G)


def project_in_place(G: Float[Tensor, "out r"], D: Float[Tensor, "out k"]) -> None:
    """Remove from G what it has along D: `project_onto_complement`, written back into G.

    Args:
        G: (out, r) gradient or factor, changed in place; a transposed view is fine.
        D: (out, k) orthonormal columns in at least float32; a G of lower precision is projected in D's
            precision and rounded once.
    """
    if G.dtype == D.dtype:
        G.addmm_(D, D.mT @ G, alpha=-1)
    else:
        G.copy_(project_onto_complement(G.to(D.dtype), D))
