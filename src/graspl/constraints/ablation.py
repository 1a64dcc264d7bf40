"""Concept ablation: the forward pass of training goes without the directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graspl.adapters.sites import Site
from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions


@dataclass
class AblationConstraint(Constraint):
    """Projects the residual stream off D_l behind every layer while training: r <- r - D_l D_l^T r.

    What the model cannot see along D_l it cannot learn to use, and what it would have gained by it is not learnt either. In
    evaluation nothing is ablated. The ablation's own backward pass is the same projection, so gradients are cut too (`both`);
    `forward` lets them through as if nothing were ablated; cutting gradients alone is `ActivationConstraint`.

    Source:
        Concept ablation fine-tuning, arXiv:2507.16795. Ours differs in that the directions may come from any
        identification, and that every decoder layer is ablated; the authors choose layers.
    """

    k: int | None = None
    """Directions a layer, None for all that there are."""
    mode: Literal["both", "forward"] = "both"
    """Whether the backward pass is ablated with the forward pass."""
    directions: str | None = None
    """A directions file of its own; None takes the model's."""

    def __post_init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the layers' directions; any adapter will do."""
        self._bound = self.own(directions)

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Ablate behind every layer.

        Raises:
            GrasplError: the directions are of other layers, or fewer than k.
        """
        self.detach()
        bases = self._bound.layer_bases(list(layers), k=self.k)
        self._hooks = [
            layer.register_forward_hook(_ablater(D, through=self.mode == "forward"))
            for layer, D in zip(layers.values(), bases, strict=True)
        ]

    def detach(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Nothing is left to do: the pass itself was ablated."""

    def project_step(self, sites: Sequence[Site]) -> None:
        """Nothing is held in the weights."""


def ablated(stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
    """Return a stream without what lies along D: r - D D^T r, in its own dtype."""
    along = D.to(stream)
    return stream - (stream @ along) @ along.mT


def _ablater(D: Float[Tensor, "hidden k"], *, through: bool) -> Any:
    def ablate(module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not (module.training and torch.is_grad_enabled()):
            return None  # a validation, or the base model as it is
        stream = output[0] if isinstance(output, tuple) else output
        without = ablated(stream, D)
        if through:
            without = stream + (without - stream).detach()
        return (without, *output[1:]) if isinstance(output, tuple) else without

    return ablate
