"""Fits of a few steps, after which everything is as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from graspl.adapters.sharding import total
from graspl.data.batches import TrainLoader
from graspl.host import Host


@contextmanager
def thrown_away(host: Host) -> Iterator[list[Any]]:
    """Give the adapter's factors, A and B of each site, to train, and put them and the random state back."""
    factors = [p for site in host.sites for p in (site.A, site.B)]
    start = [p.detach().clone() for p in factors]
    with torch.random.fork_rng(devices=[host.device] if host.device.type == "cuda" else []):
        try:
            yield factors
        finally:
            with torch.no_grad():
                for p, value in zip(factors, start, strict=True):
                    p.copy_(value)
                    p.grad = None


def without_end(loader: TrainLoader) -> Iterator[Any]:
    """Yield its batches again and again."""
    while True:
        yield from loader


def take_step(host: Host, trained: Sequence[Any], optimizer: Optimizer, batches: Iterator[Any]) -> None:
    """Take one optimizer step on the mean loss of its answer tokens, over all processes."""
    optimizer.zero_grad()
    tokens = sum(_backward(host, batch) for batch in islice(batches, host.trainer.accumulate_grad_batches))
    _average(host, trained, tokens)
    optimizer.step()


def _backward(host: Host, batch: Any) -> Tensor:
    batch = host.trainer.strategy.batch_to_device(batch, host.device)
    with host.trainer.precision_plugin.train_step_context(), torch.enable_grad():
        loss, tokens = host.answer_loss(batch)
    loss.backward()
    return tokens


def _average(host: Host, trained: Sequence[Any], tokens: Any) -> None:
    """Turn summed gradients into the mean over the step's answer tokens, over all processes."""
    counted = total(tokens)
    for p in trained:
        if p.grad is None:
            continue
        if isinstance(p, DTensor):
            p.grad.mul_(host.trainer.world_size)  # FSDP2 has averaged over processes
        else:
            p.grad.copy_(total(p.grad))  # the module is called beside DDP's wrapper, which would do it
        p.grad.div_(counted)
