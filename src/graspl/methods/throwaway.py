"""The throw-away naive fit: a few steps without a constraint, only to find the directions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from graspl.adapters.files import AdapterFolder, LiveModel
from graspl.adapters.sharding import total
from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions
from graspl.directions.from_layers import residual_spectra
from graspl.directions.from_weights import Identification
from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule

TRACKED = 8
"""Directions a layer whose rest is waited for: the first is there after three steps, those behind it need ten."""

log = logging.getLogger(__name__)


def throwaway_directions(
    module: LoRALitModule,
    method: Identification,
    *,
    max_steps: int,
    stable: float,
    held: Constraint | None = None,
) -> tuple[Directions, float]:
    """Train the adapter for a few steps, find the directions, and put everything back.

    It ends when what is written to the residual stream has found its way, which the weights alone tell: the leading left
    singular vectors of a step and of the one before span subspaces that agree to `stable`, the mean squared cosine of their
    principal angles over layers. Afterwards the adapter, its gradients and the random state are as before; optimizer,
    schedule and data order have not begun.

    Args:
        module: in a fit, with its model on its device.
        method: finds the directions in the throw-away adapter.
        max_steps: optimizer steps at most.
        stable: agreement in 0..1 at which it stops.
        held: a constraint, bound and attached, that these steps keep to; None trains naively.

    Returns:
        The directions, and how much is written along the first of each layer: the mean of sigma_1, a step.

    Raises:
        GrasplError: the fit has no DataModule of graspl, or the method cannot use the adapter.

    Source:
        Own. The singular vectors follow the gradient, which settles within a few steps (docs/method.md).
    """
    datamodule = _datamodule(module)
    with _thrown_away(module) as factors:
        steps = _train(module, factors, _batches(datamodule), max_steps, stable, held)
        live = LiveModel(
            module.model,  # type: ignore[arg-type]
            datamodule.tokenizer,
            datamodule.train_conversations(),
            datamodule.text_conversations(),
        )
        found = method(_adapter(module, live))
        strength = _strength(module) / steps
    log.info("directions: found by %s after %d naive steps", type(method).__name__, steps)
    metadata = {**found.metadata, "base_model": module.base_model, "naive_steps": str(steps)}
    return Directions(found.sites, metadata, found.layers), strength


def noise_floor(module: LoRALitModule, *, max_steps: int, stable: float) -> tuple[float, int]:
    """Return what a throw-away adapter writes along its first directions when answers are dealt out anew.

    Args:
        module: in a fit.
        max_steps: optimizer steps at most.
        stable: agreement in 0..1 at which it stops.

    Returns:
        The mean of sigma_1 over layers, a step: what there is to learn from answers without their questions; and how many
        steps it took.
    """
    datamodule = copy(_datamodule(module))
    datamodule.shuffle_train_answers()
    with _thrown_away(module) as factors:
        steps = _train(module, factors, _batches(datamodule), max_steps, stable, None)
        return _strength(module) / steps, steps


def _datamodule(module: LoRALitModule) -> Any:
    datamodule: Any = module.trainer.datamodule  # type: ignore[attr-defined]
    if datamodule is None or not hasattr(datamodule, "train_conversations"):
        raise GrasplError(
            "model.directions: no file is given, and without a TaskDataModule none can be found within the fit; make one "
            "with graspl identify"
        )
    return datamodule


@contextmanager
def _thrown_away(module: LoRALitModule) -> Iterator[list[Any]]:
    """Give the adapter's factors to train, and put them and the random state back."""
    factors = [p for site in module.sites for p in (site.A, site.B)]
    start = [p.detach().clone() for p in factors]
    with torch.random.fork_rng(devices=[module.device] if module.device.type == "cuda" else []):
        try:
            yield factors
        finally:
            with torch.no_grad():
                for p, value in zip(factors, start, strict=True):
                    p.copy_(value)
                    p.grad = None


def _train(
    module: LoRALitModule,
    factors: list[Any],
    batches: Iterator[Any],
    max_steps: int,
    stable: float,
    held: Constraint | None,
) -> int:
    """Take steps until the written directions are stable, and return how many."""
    optimizer = module.optimizer(factors)
    accumulate = module.trainer.accumulate_grad_batches
    before: list[Tensor] = []
    for step in range(1, max_steps + 1):
        optimizer.zero_grad()
        tokens = sum(_backward(module, batch) for batch in islice(batches, accumulate))
        _average(module, factors, tokens)
        if held is not None:
            held.project_gradients(module.sites)
        optimizer.step()
        if held is not None:
            held.project_step(module.sites)
        now = _written(module)
        if before and _agreement(before, now) >= stable:
            return step
        before = now
    log.warning(
        "directions: not stable after %d naive steps; raise model.identification_steps to go on for longer",
        max_steps,
    )
    return max_steps


def _backward(module: LoRALitModule, batch: Any) -> Tensor:
    batch = module.trainer.strategy.batch_to_device(batch, module.device)
    with module.trainer.precision_plugin.train_step_context(), torch.enable_grad():
        total, tokens = module.answer_loss(batch)
    total.backward()
    return tokens


def _average(module: LoRALitModule, factors: list[Any], tokens: Any) -> None:
    """Turn summed gradients into the mean over the step's answer tokens, over all processes."""
    counted = total(tokens)
    for p in factors:
        if p.grad is None:
            continue
        if isinstance(p, DTensor):
            p.grad.mul_(module.trainer.world_size)  # FSDP2 has averaged over processes
        else:
            p.grad.copy_(total(p.grad))  # the module is called beside DDP's wrapper, which would do it
        p.grad.div_(counted)


def _batches(datamodule: Any) -> Iterator[Any]:
    while True:
        yield from datamodule.train_dataloader()


def _adapter(module: LoRALitModule, live: LiveModel | None = None) -> AdapterFolder:
    folder = Path(module.trainer.default_root_dir)
    return AdapterFolder(folder, module.base_model, "", module.whole_sites(), live)


def _written(module: LoRALitModule) -> list[Tensor]:
    """Return the leading left singular vectors of what each layer writes, (hidden, up to TRACKED) each."""
    return [spectrum.U[:, :TRACKED] for spectrum in residual_spectra(_adapter(module)).values()]


def _strength(module: LoRALitModule) -> float:
    spectra = residual_spectra(_adapter(module)).values()
    return sum(float(spectrum.S[0]) for spectrum in spectra) / len(spectra)


def _agreement(before: list[Tensor], now: list[Tensor]) -> float:
    """Return the mean squared cosine of the principal angles, over layers, 0..1."""
    shares = [
        (U.mT @ V).square().sum() / max(U.shape[1], V.shape[1]) for U, V in zip(before, now, strict=True)
    ]
    return float(torch.stack(shares).mean())
