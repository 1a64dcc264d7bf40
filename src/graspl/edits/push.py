"""Steering: the stream is pushed along a direction."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from graspl.edits.base import Phase, StreamEdit


@dataclass
class Push(StreamEdit):
    """Adds strength * ||r_l|| d_l to the stream, with d_l the layer's first direction and its sign.

    In training with a positive strength this is preventative steering: what the push gives already need not be learnt. At
    inference with a negative strength it steers away from the factor.

    Source:
        Persona vectors, arXiv:2507.21509, which steer one layer; a strength relative to the stream's length, so that one
        serves all layers, is own.
    """

    strength: float = 0.1
    """Share of the stream's length at each token; negative pushes away, 0 does nothing."""
    during: Phase = "training"
    """When the stream is pushed."""

    k = 1
    needs_sign: ClassVar[bool] = True

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream, pushed."""
        return pushed(stream, D, self.strength)


def pushed(stream: Tensor, D: Float[Tensor, "hidden k"], strength: float) -> Tensor:
    """Return a stream plus strength times its own length along the first direction; the length has no gradient."""
    if not strength or not D.shape[1]:
        return stream
    return stream + strength * stream.detach().norm(dim=-1, keepdim=True) * D[:, 0].to(stream)
