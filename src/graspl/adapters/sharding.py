"""Sharded models: PyTorch's FSDP2, and tensors that are whole again."""

import torch.distributed as dist
from peft import PeftModel
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard


def shard_layers(model: PeftModel, mesh: DeviceMesh) -> None:
    """Shard every decoder layer by itself, then the rest (FSDP2), in place.

    Args:
        model: with its adapter.
        mesh: (processes,) over which parameters are split.
    """
    for layer in model.get_base_model().get_decoder().layers:  # type: ignore[operator, union-attr]
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its shards; one that is not sharded as it is. Every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def total(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; where there is one, the tensor itself. Every process must call it.

    Lightning's `strategy.reduce` would wait for all processes to arrive first, a collective more.
    """
    if dist.is_available() and dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def rows_here(rows: int, mesh: DeviceMesh) -> slice:
    """Return which of a tensor's rows this process holds: shards are as long as the first, but for the last.

    Args:
        rows: of the whole tensor.
        mesh: (processes,) over which it is split.
    """
    longest = -(-rows // mesh.size())
    first = min(mesh.get_local_rank() * longest, rows)
    return slice(first, min(first + longest, rows))


def like(tensor: Tensor, other: Tensor, *, split: bool) -> Tensor:
    """Return a tensor that can be multiplied with another that may be sharded; without a collective.

    Args:
        tensor: (n, ...), the same on every process.
        other: a plain tensor, which leaves the first as it is, or a sharded one.
        split: keep this process's rows alone, where the rows are those of the other; else all of them.
    """
    if not isinstance(other, DTensor):
        return tensor
    mesh = other.device_mesh
    if split and other.placements == (Shard(0),):
        # A copy, or the whole tensor would be kept for the sake of its part
        here = tensor[rows_here(tensor.shape[0], mesh)].clone()
        return DTensor.from_local(
            here, mesh, [Shard(0)], run_check=False, shape=tensor.shape, stride=tensor.stride()
        )
    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
