"""GRASP: fine-tune in the null space of the spurious directions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from graspl.adapters.residual import decoder_layers
from graspl.adapters.sharding import total
from graspl.constraints import FactorConstraint, Held, Rider, StreamConstraint
from graspl.methods.directions import DirectionSource, ThrowAwayFit
from graspl.methods.lora import LoRALitModule
from graspl.methods.state import gather_gradients

log = logging.getLogger(__name__)


class GRASPLitModule(LoRALitModule):
    """LoRA that learns no new reliance on the spurious directions.

    `on_before_optimizer_step` projects the gradient, before clipping. In exact mode the step is projected as well: Adam
    divides each coordinate by its own scale, which carries a projected gradient out of the null space again.

    Args:
        constraints: what is held; None takes `graspl.constraints.default_constraints()`.
        exact: project every step too; without it only the gradient is projected, and reliance creeps in.
        directions: a directions file, or how to find them; None takes `ThrowAwayFit()`, which finds them in this fit.
        constrain: when constraints are held. `unlikely` asks the start, before training, whether it will be enough alone.
            Where that is not likely, A is trained too, and directions are found and held; elsewhere A stays as it began and
            nothing is held. `in_doubt` holds them where the start is in doubt as well. Directions of a file are held in any
            case. Both need a start that predicts, `graspl.starts.NullSpaceStart`.
        **kwargs: as in LoRALitModule.

    Source:
        arXiv:2605.27676, Eq. 8-10. Exact mode is own, after Adam-NSCL (arXiv:2103.07113). Which constraints are best was
        measured (docs/method.md).
    """

    def __init__(
        self,
        constraints: list[FactorConstraint | StreamConstraint] | None = None,
        exact: bool = True,
        directions: DirectionSource | str | None = None,
        constrain: Literal["always", "in_doubt", "unlikely"] = "always",
        **kwargs: Any,
    ) -> None:
        super().__init__(directions=ThrowAwayFit() if directions is None else directions, **kwargs)
        self.held = Held(constraints)
        self.constraints = self.held.constraints
        self.exact, self.constrain = exact, constrain
        self._asks = constrain != "always" and not isinstance(self.directions, str)
        self._keeps_A = False

    @property
    def trains_A(self) -> bool:
        """Whether the optimizer has A as well as B; where the start is asked, it answers too late for that: it has both."""
        return self.start.train_A or self.constrain != "always"

    def configure_optimizers(self) -> Any:
        """Project every step of the optimizer, in exact mode."""
        configured = super().configure_optimizers()
        if self.exact:
            configured["optimizer"].register_step_post_hook(lambda *_: self.held.project_step(self.sites))
        return configured

    def find_directions(self) -> None:
        """Find the directions before the start is set, unless it has to predict first."""
        if not self._asks:
            super().find_directions()

    def on_train_start(self) -> None:
        """Set the start, find the directions, and bind the constraints to the adapter, where they are needed."""
        plain = [p.detach().clone() for p in self._factors()] if self._asks else []
        super().on_train_start()
        alone = bool(plain) and not self._needed(plain)
        self._keeps_A = alone and not self.start.train_A
        if alone:
            return
        assert self.model is not None, "configure_model comes first"
        assert self.directions_in_use is not None, "LoRALitModule finds directions first"
        self.held.bind(self.sites, decoder_layers(self.model), self.directions_in_use)

    def _factors(self) -> list[Tensor]:
        return [factor for site in self.sites for factor in (site.A, site.B)]

    def _needed(self, plain: list[Tensor]) -> bool:
        """Say whether constraints are needed; where they are, find the directions in a naive fit from `plain` factors."""
        # A fit that goes on keeps what it decided: its checkpoint has the directions, or none
        if self.global_step:
            return self.directions_in_use is not None
        outlook = self.trainer.strategy.broadcast(self.start.outlook)
        if outlook == "likely to hold" or (outlook == "in doubt" and self.constrain == "unlikely"):
            log.info("GRASP: no constraint is added: the null space is %s", outlook)
            return False
        log.info("GRASP: directions are found and held as well: the null space is %s alone", outlook)
        started = [p.detach().clone() for p in self._factors()]
        self._set_factors(plain)
        super().find_directions()
        self._set_factors(started)
        return True

    @torch.no_grad()
    def _set_factors(self, values: list[Tensor]) -> None:
        for factor, value in zip(self._factors(), values, strict=True):
            factor.copy_(value)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Let the constraints see the batch, train on it as LoRA does, and add what they ask for."""
        self.held.observe(batch, self.global_step, self.base_forward)
        return self.held.with_penalty(super().training_step(batch, batch_idx))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Project the gradient (Eq. 9), and average it over the step's tokens, whose count travels with the projection."""
        gather_gradients(self)
        rider = Rider(self.sums.take())
        self.held.project_gradients(self.sites, rider)
        self.sums.finish(self, rider.value if rider.arrived else total(rider.value))
        if self._keeps_A:  # An optimizer passes over what has no gradient, with weight decay too
            for site in self.sites:
                site.A.grad = None

    def teardown(self, stage: str) -> None:
        """Leave the model without hooks."""
        super().teardown(stage)
        self.held.release()

    @contextmanager
    def unedited(self) -> Iterator[None]:
        """Run forward passes within the block without edits and stream constraints."""
        with self.attached.off(), self.held.suspended():
            yield
