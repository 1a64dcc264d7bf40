"""Cutting gradients: no step is taken in order to move the stream along the directions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.edits.base import StreamEdit


@dataclass
class Cut(StreamEdit):
    """Removes what lies along the layer's directions from the gradient that comes back; the forward pass is untouched.

    With g = dLoss/dr_l, the layers below receive argmin_x ||x - g|| subject to D_l^T x = 0, that is g - D_l (D_l^T g).
    `ActivationConstraint` cuts in the same way and can also lead the stream back.

    Source:
        The gradient-only ablation that the authors of CAFT report, arXiv:2507.16795.
    """

    k: int | None = None
    """Directions a layer; None takes all that every layer has."""

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the same stream, with a gradient that is cut."""
        return cut(stream, D)


def cut(stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
    """Return a view of a stream (b, L, hidden) whose gradient has nothing along D; the stream itself without a gradient."""
    if not stream.requires_grad:
        return stream
    view = stream.view_as(stream)
    view.register_hook(_cutter(D))
    return view


def _cutter(D: Float[Tensor, "hidden k"]) -> Callable[[Tensor], Tensor]:
    def without(gradient: Tensor) -> Tensor:
        # k is small, so this costs 2 k multiplications a number, against thousands in the layer
        along, rows = D.to(gradient.dtype), gradient.flatten(0, -2)
        return torch.addmm(rows, rows @ along, along.mT, alpha=-1).view_as(gradient)

    return without
