"""The projection that constraints are made of, also for factors split over processes: one collective for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from graspl.adapters.sharding import rows_here


@dataclass
class Rider:
    """Numbers that must be summed over processes and can travel with another sum, which saves a collective.

    A fit sums the answer tokens of a step over processes anyway. Sums travel in float32 or wider, so counts up to 2^24 are
    exact.
    """

    value: Tensor
    """(n,), this process's part; the sum once it has `arrived`."""
    arrived: bool = False
    """Whether a collective took it along."""


def along(pairs: Sequence[tuple[Tensor, Tensor]], rider: Rider | None = None) -> list[Tensor]:
    """Return D^T X, (k, c), whole, of each pair, with one collective for all X that are split and none where no X is.

    Every process must give the same pairs in the same order.

    Args:
        pairs: X (out, c), whole or split by rows or columns, and its D (out, k), in at least float32.
        rider: travels with that collective.
    """
    products: list[Tensor] = []
    parts = [_part(X) for X, _ in pairs]
    for part, (X, D) in zip(parts, pairs, strict=True):
        product = _rows(D, part).mT @ part.local.to(D.dtype)
        if part.columns is not None:
            placed = product.new_zeros(product.shape[0], X.shape[1])
            placed[:, part.columns] = product
            product = placed
        products.append(product)
    group = next((part.group for part in parts if part.group is not None), None)
    if group is None:
        return products
    return _sum(products, [part.group is not None for part in parts], group, rider)


def subtract(X: Tensor, D: Tensor, P: Tensor) -> None:
    """X <- X - D P, without a collective.

    Args:
        X: (out, c), whole or split, changed in place.
        D: (out, k).
        P: (k, c), whole.
    """
    part = _part(X)
    _subtract(part.local, _rows(D, part), P if part.columns is None else P[:, part.columns])


def project_together(pairs: Sequence[tuple[Tensor, Tensor]], rider: Rider | None = None) -> None:
    """Replace each G by the matrix nearest to it that has nothing along its D.

    argmin_X ||X - G||_F  subject to  D^T X = 0,   that is   X = G - D (D^T G).

    D^T G of a G split by rows is a sum over processes; the sums of all pairs, (k, r) each, travel as one tensor, and nothing
    is sent for the others. Every process must give the same pairs in the same order.

    Args:
        pairs: G (out, r), changed in place (a transposed view is fine), and its D (out, k), orthonormal and in at least
            float32. A G of lower precision is projected in D's precision and rounded once.
        rider: travels with that collective.

    Source:
        Eq. 9 of arXiv:2605.27676 with J = D^T; that it acts on a factor is our reading.
    """
    split = [(G, D) for G, D in pairs if _part(G).rows is not None]
    sums = iter(along(split, rider))
    for G, D in pairs:
        part = _part(G)
        here = _rows(D, part)
        # All rows are here, or the sum is: a part of the columns needs that part alone
        product = here.mT @ part.local.to(D.dtype) if part.rows is None else next(sums)
        _subtract(part.local, here, product)


class _Part(NamedTuple):
    """What this process holds of a matrix."""

    local: Tensor
    rows: slice | None = None
    columns: slice | None = None
    group: dist.ProcessGroup | None = None


def _part(X: Tensor) -> _Part:
    if not isinstance(X, DTensor):
        return _Part(X)
    assert X.device_mesh.ndim == 1, "graspl shards over one dimension"
    group, local = X.device_mesh.get_group(), X.to_local()
    if X.placements == (Shard(0),):
        return _Part(local, rows=rows_here(X.shape[0], X.device_mesh), group=group)
    if X.placements == (Shard(1),):
        return _Part(local, columns=rows_here(X.shape[1], X.device_mesh), group=group)
    return _Part(local)


def _rows(D: Tensor, part: _Part) -> Tensor:
    """Return the rows of D that belong to this process's rows."""
    if isinstance(D, DTensor):
        if D.placements == (Shard(0),):
            return D.to_local()
        D = D.to_local()
    return D if part.rows is None else D[part.rows]


def _subtract(X: Tensor, D: Tensor, P: Tensor) -> None:
    if X.dtype == D.dtype:
        X.addmm_(D, P, alpha=-1)
    else:
        X.copy_(X.to(D.dtype) - D @ P)


def _sum(
    products: list[Tensor], is_split: list[bool], group: dist.ProcessGroup, rider: Rider | None
) -> list[Tensor]:
    """Return the products with those that are split summed over processes, in one collective."""
    sent = [product for product, split in zip(products, is_split, strict=True) if split]
    parts = [each.flatten() for each in sent]
    if rider is not None and (rider.arrived or dist.get_world_size(group) != dist.get_world_size()):
        rider = None
    if rider is not None:
        parts.append(rider.value.to(parts[0]))
    flat = torch.cat(parts)
    dist.all_reduce(flat, group=group)
    if rider is not None:
        count = len(rider.value)
        rider.value, rider.arrived = flat[-count:], True
        flat = flat[:-count]
    summed = iter(flat.split([each.numel() for each in sent]))
    return [
        next(summed).view_as(product) if split else product
        for product, split in zip(products, is_split, strict=True)
    ]
