"""The activation constraint with an explicit Jacobian, as Eq. 9 of the paper has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from graspl.adapters.sites import Site
from graspl.constraints.answers import Forward, answer_places
from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions
from graspl.errors import GrasplError

RIDGE = 1e-6
"""Of the mean of diag(J J^T): keeps the solve finite where two rows of J are the same up to rounding."""


@dataclass
class JacobianConstraint(Constraint):
    """Holds h_l = E D_l^T r_l over the answer tokens of a batch at its value, to first order in the step.

        argmin_x 1/2 ||x - v||^2  subject to  J x = 0,   that is   x = v - J^T (J J^T)^-1 J v

    with v the gradient of all factors and J = dh/dtheta, (k L, parameters), by one backward pass a row. This is the
    reference that `ActivationConstraint` is compared with: a step costs a forward pass and k L backward passes more. It
    takes the last micro-batch of the step, and needs factors that are not sharded. h is not linear in the factors, so
    there is no exact mode.

    Source:
        Eq. 8-10 of arXiv:2605.27676; that h_l is the mean projected activation is our reading.
    """

    k: int | None = 1
    """Directions a layer; None holds all that there are."""
    directions: str | None = None
    """A directions file of its own; None takes the model's."""

    def __post_init__(self) -> None:
        self._observed: tuple[dict[str, Any], Forward] | None = None

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the layers' directions.

        Raises:
            GrasplError: the factors are sharded.
        """
        if any(isinstance(site.B, DTensor) for site in sites):
            raise GrasplError(
                "constraint: JacobianConstraint needs whole factors; use ActivationConstraint with sharded strategies"
            )
        self._bound = self.own(directions)

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Remember the layers whose output is held."""
        self._layers = list(layers.values())
        self._bases = self._bound.layer_bases(list(layers), k=self.k)

    @property
    def needs_batch(self) -> bool:
        """It is what J is taken on."""
        return True

    def observe(self, batch: dict[str, Any], step: int, forward: Forward, base_forward: Forward) -> None:
        """Remember the batch of the step."""
        self._observed = batch, forward

    @torch.enable_grad()
    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Project v <- v - J^T (J J^T)^-1 J v, over all factors together."""
        assert self._observed is not None, "observe comes first"
        factors = [p for site in sites for p in (site.A, site.B) if p.grad is not None]
        J = self._jacobian(factors)  # (k L, parameters)
        v = torch.cat([p.grad.flatten() for p in factors])  # type: ignore[union-attr]
        gram = J @ J.mT  # (k L, k L)
        gram.diagonal().add_(RIDGE * gram.diagonal().mean().clamp_min(1e-30))
        v = v - J.mT @ torch.linalg.solve(gram, J @ v)
        for p, part in zip(factors, v.split([p.numel() for p in factors]), strict=True):
            p.grad.copy_(part.view_as(p))  # type: ignore[union-attr]

    def project_step(self, sites: Sequence[Site]) -> None:
        """Nothing is held exactly."""

    def _jacobian(self, factors: Sequence[Tensor]) -> Float[Tensor, "rows parameters"]:
        h = self.held()
        rows = []
        for index in range(len(h)):
            grads = torch.autograd.grad(h[index], factors, retain_graph=index + 1 < len(h), allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, factors, strict=True)]
            rows.append(torch.cat([g.flatten() for g in filled]))
        J = torch.stack(rows)
        if dist.is_available() and dist.is_initialized():
            # Every process has another batch, and all must take the same step
            dist.all_reduce(J)
            J /= dist.get_world_size()
        return J

    def held(self) -> Float[Tensor, " rows"]:
        """Return h on the batch observed last, (k L,), with its graph."""
        assert self._observed is not None, "observe comes first"
        batch, forward = self._observed
        streams: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(
                lambda _m, _i, out: streams.append(out[0] if isinstance(out, tuple) else out)  # type: ignore[arg-type]
            )
            for layer in self._layers
        ]
        try:
            forward(batch)
        finally:
            for hook in hooks:
                hook.remove()
        mask = answer_places(batch["labels"])
        means = [stream[mask].float().mean(0) for stream in streams]  # (hidden,) a layer
        return torch.cat([mean @ D.to(mean) for mean, D in zip(means, self._bases, strict=True)])
