"""Sharded models: PyTorch's FSDP2, and tensors that are whole again."""

from peft import PeftModel
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor


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


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """Return a tensor that can be multiplied with another: replicated over its processes where that is sharded."""
    if isinstance(other, DTensor):
        mesh = other.device_mesh
        return distribute_tensor(tensor, mesh, [Replicate()] * mesh.ndim)
    return tensor
