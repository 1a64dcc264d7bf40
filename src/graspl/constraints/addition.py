"""Preventative steering: while training, the stream is pushed along a direction, so that the weights need not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graspl.adapters.sites import Site
from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions
from graspl.errors import GrasplError


@dataclass
class AdditionConstraint(Constraint):
    """Adds strength * ||r_l|| d_l to the residual stream behind every layer while training, nothing in evaluation.

    d_l is the layer's first direction, with its sign: take directions that have one (`PersonaContrast`, `MeanShift`).

    Source:
        Preventative steering, persona vectors, arXiv:2507.21509; a strength relative to the stream's length, so that
        one serves all layers, and every layer at once, are own.
    """

    strength: float = 0.1
    """Of the push, as a share of the stream's length at each token; 0 pushes nothing."""
    directions: str | None = None
    """A directions file of its own; None takes the model's."""

    def __post_init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the layers' first directions.

        Raises:
            GrasplError: they have no sign.
        """
        self._bound = self.own(directions)
        if self._bound.metadata.get("identification") in (
            "NaturalDirections",
            "PrincipalDirections",
            "LayerSingular",
        ):
            raise GrasplError(
                f"constraint: {self._bound.metadata['identification']} gives directions without a sign, and half of them "
                "would push the wrong way; take PersonaContrast or MeanShift"
            )

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Push behind every layer."""
        self.detach()
        bases = self._bound.layer_bases(list(layers), k=1)
        self._hooks = [
            layer.register_forward_hook(_pusher(D[:, 0], self.strength))
            for layer, D in zip(layers.values(), bases, strict=True)
        ]

    def detach(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Nothing is projected."""

    def project_step(self, sites: Sequence[Site]) -> None:
        """Nothing is held in the weights."""


def _pusher(d: Float[Tensor, " hidden"], strength: float) -> Any:
    def push(module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not (strength and module.training and torch.is_grad_enabled()):
            return None  # a validation, or the base model as it is
        stream = output[0] if isinstance(output, tuple) else output
        pushed = stream + strength * stream.detach().norm(dim=-1, keepdim=True) * d.to(stream)
        return (pushed, *output[1:]) if isinstance(output, tuple) else pushed

    return push
