"""Where a fit's directions come from: a file, or a throw-away naive fit and an identification."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graspl.activations.natural import NaturalDirections
from graspl.adapters.files import AdapterFolder, LiveModel
from graspl.directions import Directions, Identification, residual_spectra
from graspl.errors import GrasplError
from graspl.host import Host
from graspl.ranges import ClosedUnitInterval, NonNegativeInt, PositiveInt
from graspl.starts.short_fits import take_step, thrown_away, without_end

# Directions a layer whose rest is waited for: the first is there after three steps, those behind it need ten.
TRACKED = 8

log = logging.getLogger(__name__)


class DirectionSource(ABC):
    """Finds the directions within a fit; a directions file needs none."""

    @abstractmethod
    def find(self, host: Host) -> Directions:
        """Return the directions; the adapter, the random state and the data order are left as they were.

        Args:
            host: the module that trains, with its model on its device, before the first step.
        """


@dataclass
class ThrowAwayFit(DirectionSource):
    """Trains the adapter naively for a few steps, finds the directions, and puts everything back.

    It ends when what is written to the residual stream has found its way, which the weights alone tell: the leading left
    singular vectors of a step and of the step before span subspaces that agree to `stable`, the mean squared cosine of their
    principal angles over layers.

    Source:
        Own. The singular vectors follow the gradient, which settles within a few steps (docs/method.md).
    """

    identification: Identification | None = None
    """How the directions are found in the throw-away adapter; None takes `NaturalDirections()`, which needs `data.text`."""
    steps: PositiveInt = 20
    """Optimizer steps at most."""
    stable: ClosedUnitInterval = 0.99
    """Agreement of one step's written directions with the last one's at which it ends, 0..1."""
    own_text: NonNegativeInt = 0
    """Rows that the base model writes itself, for an identification that reads text where there is no `data.text`."""

    def find(self, host: Host) -> Directions:
        """Return what the identification finds after a few naive steps.

        Raises:
            GrasplError: the fit has no DataModule of graspl, or the identification cannot use the adapter.
        """
        datamodule = host.trainer.datamodule
        if datamodule is None or not hasattr(datamodule, "train_conversations"):
            fix = "make a file with graspl identify and name it"
            raise GrasplError(f"model.directions: cannot be found without a TaskDataModule; {fix}")
        # None rather than a default instance: jsonargparse would keep its options when another class is named
        identification = self.identification or NaturalDirections()
        text = datamodule.text_conversations()
        own = host.own_text(self.own_text) if self.own_text and not text else []
        with thrown_away(host) as factors:
            steps = self._train(host, factors, without_end(datamodule.train_dataloader()))
            live = LiveModel(
                host.model,  # type: ignore[arg-type]
                datamodule.tokenizer,
                datamodule.train_conversations(),
                text or own,
            )
            found = identification(_adapter(host, live))
        log.info("directions: found by %s after %d naive steps", type(identification).__name__, steps)
        metadata = {**found.metadata, "base_model": host.base_model, "naive_steps": str(steps)}
        metadata |= {"own_text": str(len(own))} if own else {}
        return Directions(found.sites, metadata, found.layers)

    def _train(self, host: Host, factors: list[Any], batches: Iterator[Any]) -> int:
        """Take steps until the written directions are stable, and return how many."""
        optimizer = host.optimizer(factors)
        before: list[Tensor] = []
        for step in range(1, self.steps + 1):
            take_step(host, factors, optimizer, batches)
            now = _written(host)
            if before and _agreement(before, now) >= self.stable:
                return step
            before = now
        log.warning(
            "directions: not stable after %d naive steps; raise model.directions.steps to go on for longer",
            self.steps,
        )
        return self.steps


def _adapter(host: Host, live: LiveModel | None = None) -> AdapterFolder:
    folder = Path(host.trainer.default_root_dir)
    return AdapterFolder(folder, host.base_model, "", host.whole_sites(), live=live)


def _written(host: Host) -> list[Tensor]:
    """Return the leading left singular vectors of what each layer writes, (hidden, up to TRACKED) each."""
    return [spectrum.D[:, :TRACKED] for spectrum in residual_spectra(_adapter(host)).values()]


def _agreement(before: list[Tensor], now: list[Tensor]) -> float:
    """Return the mean squared cosine of the principal angles, over layers, 0..1."""
    shares = [
        (U.mT @ V).square().sum() / max(U.shape[1], V.shape[1]) for U, V in zip(before, now, strict=True)
    ]
    return float(torch.stack(shares).mean())
