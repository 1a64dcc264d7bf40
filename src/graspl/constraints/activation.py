"""The activation constraint: no step is taken in order to push the residual stream along D."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from graspl.adapters.sites import Site
from graspl.constraints.base import Constraint
from graspl.directions.basis import Directions


@dataclass
class ActivationConstraint(Constraint):
    """Cuts dLoss/dr_l along D_l, the directions of layer l, in the backward pass; the forward pass is untouched.

    With r_l the residual stream after layer l and g = dLoss/dr_l at a token, the layers below receive

        argmin_x ||x - g||  subject to  D_l^T x = 0,   that is   x = g - D_l (D_l^T g).

    So no parameter is moved in order to move r_l along D_l, whatever route leads there, while what the base model
    computes along D_l stays in use. It bounds the reasons for a step, not its effects: h_l = E D_l^T r_l may drift as a
    by-product, so there is no exact mode. `JacobianConstraint` holds h_l itself, to first order.

    Source:
        Own reading of Eq. 8-10 of arXiv:2605.27676, with h over activations. CAFT (arXiv:2507.16795) ablates along
        directions in the forward pass; cutting gradients alone is an ablation that its authors report.
    """

    k: int = 8
    """Directions a layer, at most as many as there are; 8 was steadiest over development organisms (docs/method.md)."""
    directions: str | None = None
    """A directions file of its own; None takes the model's."""

    def __post_init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the layers' directions; any adapter will do."""
        self._bound = self.own(directions)

    def attach(self, layers: Mapping[str, nn.Module]) -> None:
        """Cut the backward signal behind every layer.

        Raises:
            GrasplError: the directions are of other layers, or fewer than k.
        """
        self.detach()
        bases = self._bound.layer_bases(list(layers), k=self.k)
        self._hooks = [
            layer.register_forward_hook(_cut_behind(D))
            for layer, D in zip(layers.values(), bases, strict=True)
        ]

    def detach(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def project_gradients(self, sites: Sequence[Site]) -> None:
        """Nothing is left to do: the gradients come from a backward pass that was cut."""

    def project_step(self, sites: Sequence[Site]) -> None:
        """Nothing is held exactly."""


def _cut_behind(D: Tensor) -> Callable[..., None]:
    """Return a forward hook that cuts what comes back through a layer's output along D, (hidden, k)."""
    moved: list[Tensor] = []

    def cut(gradient: Tensor) -> Tensor:
        if not moved or moved[0].device != gradient.device or moved[0].dtype != gradient.dtype:
            moved[:] = [D.to(gradient)]
        # k is small, so this costs 2 k multiplications a number, against thousands in the layer
        return gradient - (gradient @ moved[0]) @ moved[0].mT

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        stream = output[0] if isinstance(output, tuple) else output
        if stream.requires_grad:
            stream.register_hook(cut)

    return hook
