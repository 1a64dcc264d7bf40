"""Orthogonal projections that the constraints are made of."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


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


def project_together(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """`project_in_place` for many, with one collective for all whose rows are split over processes, and none for the others.

    D^T G of a G split by rows is a sum over processes; the sums of all pairs, (k, r) each, travel as one tensor. Every
    process must give the same pairs in the same order.

    Args:
        pairs: G (out, r), changed in place, and its D (out, k), as in `project_in_place`.
    """
    split = [(G, D) for G, D in pairs if isinstance(G, DTensor) and _is_split_by_rows(G)]
    for G, D in pairs:
        if not (isinstance(G, DTensor) and _is_split_by_rows(G)):
            project_in_place(G, D)
    if not split:
        return
    locals_ = [(G.to_local(), _rows_here(D, G)) for G, D in split]
    sums = [D.mT @ G.to(D.dtype) for G, D in locals_]
    flat = torch.cat([each.flatten() for each in sums])
    dist.all_reduce(flat, group=split[0][0].device_mesh.get_group())
    totals = flat.split([each.numel() for each in sums])
    for (G, D), part, total in zip(locals_, sums, totals, strict=True):
        if G.dtype == D.dtype:
            G.addmm_(D, total.view_as(part), alpha=-1)
        else:
            G.copy_(G.to(D.dtype) - D @ total.view_as(part))


def _is_split_by_rows(G: DTensor) -> bool:
    return G.device_mesh.ndim == 1 and G.placements == (Shard(0),)


def _rows_here(D: Tensor, G: DTensor) -> Tensor:
    """Return the rows of D that belong to this process's rows of G: shards are as long as the first, but for the last."""
    whole = D.to_local() if isinstance(D, DTensor) else D
    longest = -(-G.shape[0] // G.device_mesh.size())
    first = min(G.device_mesh.get_local_rank() * longest, G.shape[0])
    return whole[first : first + longest]
