"""Sharded models: PyTorch's FSDP2 and FSDP1, and tensors that are whole again."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.fsdp.wrap import wrap
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.nn import Parameter

WRAPPED = "_fsdp_wrapped_module."  # What FSDP1 puts before the names of a module that it has wrapped


def shard_layers(model: PeftModel, mesh: DeviceMesh) -> None:
    """Shard every decoder layer by itself, then the rest (FSDP2), in place, over a mesh of (processes,)."""
    for layer in model.get_base_model().get_decoder().layers:  # type: ignore[operator, union-attr]
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # Else `generate` would find the embeddings in shards
    register_fsdp_forward_method(model, "generate")


def shard_frozen(model: PeftModel, device: torch.device) -> None:
    """Shard every decoder layer by itself, then the rest, and leave the adapter whole on every process (FSDP1), in place.

    FSDP1 lays the parameters of a block end to end and cuts where it falls, so that no process would have rows of a factor.
    The adapter is small: it is copied from the first process to all, and `average_gradients` brings its gradients together.
    Call it in the context in which Lightning's strategy says how to wrap.
    """
    adapter = [p for name, p in model.named_parameters() if is_factor(name)]
    for p in adapter:
        p.data = p.data.to(device)
        dist.broadcast(p.data, src=0)
    base = model.get_base_model()
    layers = base.get_decoder().layers  # type: ignore[operator, union-attr]
    for index, layer in enumerate(layers):
        own = [p for name, p in layer.named_parameters() if is_factor(name)]
        layers[index] = wrap(layer, ignored_states=own, auto_wrap_policy=None, device_id=device)
    model.base_model.model = wrap(base, ignored_states=adapter, auto_wrap_policy=None, device_id=device)


def plain_name(name: str) -> str:
    """Return the name of a module or parameter as it is in a model that FSDP1 has not wrapped."""
    return f"{name}.".replace(WRAPPED, "")[:-1]


def is_factor(name: str) -> bool:
    """Return whether a parameter's name is that of a LoRA factor, as PEFT names them."""
    return ".lora_A." in name or ".lora_B." in name


def average_gradients(parameters: Sequence[Parameter]) -> None:
    """Average whole parameters' gradients over all processes, in place, with one collective; all must have the same ones."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its shards; one that is not sharded as it is. Every process must call it.

    A gradient that comes back is averaged over processes, as FSDP2 averages those that come back through the model.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.full_tensor(grad_placements=[Partial("avg")] * tensor.device_mesh.ndim)


def total(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; where there is one, the tensor itself. Every process must call it.

    Lightning's `strategy.reduce` would wait for all processes to arrive first, a collective more.
    """
    if dist.is_available() and dist.is_initialized():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def rows_here(rows: int, mesh: DeviceMesh) -> slice:
    """Return which of a tensor's rows this process holds: shards are as long as the first, but for the last."""
    longest = -(-rows // mesh.size())
    first = min(mesh.get_local_rank() * longest, rows)
    return slice(first, min(first + longest, rows))


def like(tensor: Tensor, other: Tensor, *, split: bool) -> Tensor:
    """Return a tensor, alike on all processes, so that it multiplies with another that may be sharded; no collective.

    With `split`, this process keeps only its rows, where the rows are those of the other.
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
