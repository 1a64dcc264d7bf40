"""Factors that are split over processes are projected with one collective for all sites together."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pair import free_port
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

from graspl.constraints import Rider, along, project_together, subtract

SHAPES = (
    (12, 3, 2),
    (7, 4, 1),
    (1, 2, 1),
    (9, 5, 3),
)  # rows that two processes share unevenly, and one that only one has


def matrices(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for out, r, k in SHAPES:
        G = torch.randn(out, r, generator=generator).to(dtype)
        found.append((G, torch.linalg.qr(torch.randn(out, k, generator=generator))[0]))
    return found


def project(mesh, dtype):
    """Check the projection of split matrices, and return how many collectives it sent."""
    whole, pairs = matrices(0, dtype), []
    for index, (G, D) in enumerate(matrices(0, dtype)):
        replicated = distribute_tensor(D, mesh, [Replicate()])
        # By rows, and one by columns, as a transposed A is
        pairs.append((distribute_tensor(G, mesh, [Shard(1 if index == 3 else 0)]), replicated))
    with CommDebugMode() as communication:
        project_together(pairs)
    for (G, D), (split, _) in zip(whole, pairs, strict=True):
        G.copy_((G.to(D.dtype) - D @ (D.mT @ G.to(D.dtype))).to(G.dtype))
        torch.testing.assert_close(
            split.full_tensor(), G, atol=1e-6, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5
        )
    return communication.get_total_counts()


def ride(mesh, rank):
    """Check that another sum travels with products of split matrices, and return how many collectives were sent."""
    whole = matrices(0, torch.float32)
    split = []
    for index, (X, D) in enumerate(whole):
        # A D split by rows belongs to an X split by rows
        by = Shard(0) if index % 2 == 0 else Replicate()
        split.append((distribute_tensor(X, mesh, [Shard(index % 2)]), distribute_tensor(D, mesh, [by])))
    sums, left = Rider(torch.tensor([rank + 1.0, 10.0])), Rider(torch.ones(1))
    with CommDebugMode() as communication:
        products = along(split, sums)
    assert sums.arrived
    assert sums.value.tolist() == [3.0, 20.0]
    with CommDebugMode() as silent:
        plain = along(whole, left)
        for (X, D), P in zip(split, products, strict=True):
            subtract(X, D, P)
    assert not left.arrived
    for product, expected, (X, _), (G, D) in zip(products, plain, split, whole, strict=True):
        torch.testing.assert_close(product, expected, atol=1e-6, rtol=1e-5)
        G.copy_((G.to(D.dtype) - D @ (D.mT @ G.to(D.dtype))).to(G.dtype))
        torch.testing.assert_close(X.full_tensor(), G, atol=1e-6, rtol=1e-5)
    return communication.get_total_counts(), silent.get_total_counts()


def work(rank, port, counts):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    counts[rank] = (project(mesh, torch.float32), project(mesh, torch.bfloat16), ride(mesh, rank))
    dist.barrier()  # or one would leave while the other still waits for it
    dist.destroy_process_group()


@pytest.mark.distributed
def test_split_factors_are_projected_with_one_collective_in_which_another_sum_travels():
    with mp.Manager() as manager:
        counts = manager.dict()
        mp.spawn(work, (free_port(), counts), nprocs=2)
        assert dict(counts) == dict.fromkeys((0, 1), (1, 1, (1, 0)))
