"""Factors that are split over processes are projected with one collective for all sites together."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

from graspl.constraints import project_in_place, project_together

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


def work(rank, port, dtype, counts):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    whole, pairs = matrices(0, dtype), []
    for index, (G, D) in enumerate(matrices(0, dtype)):
        replicated = distribute_tensor(D, mesh, [Replicate()])
        # By rows, and one by columns, as a transposed A is
        pairs.append((distribute_tensor(G, mesh, [Shard(1 if index == 3 else 0)]), replicated))
    with CommDebugMode() as communication:
        project_together(pairs)
    counts[rank] = communication.get_total_counts()
    for (G, D), (split, _) in zip(whole, pairs, strict=True):
        project_in_place(G, D)
        torch.testing.assert_close(
            split.full_tensor(), G, atol=1e-6, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5
        )
    dist.barrier()  # or one would leave while the other still waits for it
    dist.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_split_factors_are_projected_with_one_collective(dtype):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        counts = manager.dict()
        mp.spawn(work, (port, dtype, counts), nprocs=2)
        assert dict(counts) == {0: 1, 1: 1}
