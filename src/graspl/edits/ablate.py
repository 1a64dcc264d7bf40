"""Ablation: the stream goes on without what lies along the directions."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from graspl.edits.base import Phase, StreamEdit
from graspl.errors import GrasplError


@dataclass
class Ablate(StreamEdit):
    """Projects the stream off the layer's directions: r <- r - D_l D_l^T r.

    In training this is concept ablation fine-tuning (CAFT): what the model cannot see along D_l it cannot learn to use. At
    inference it is directional ablation, and everyone who uses the adapter must do the same.

    Source:
        Training: arXiv:2507.16795, whose directions people chose by meaning; here any identification gives them, and every
        layer is ablated. Inference: arXiv:2406.11717.
    """

    k: int | None = None
    """Directions a layer; None takes all that every layer has."""
    during: Phase = "training"
    """When the stream is ablated."""
    backward: bool = True
    """Ablate gradients too; False lets them through as if the stream were whole (training only)."""

    def __post_init__(self) -> None:
        if not self.backward and self.during == "inference":
            raise GrasplError("Ablate.backward: there is no backward pass at inference; leave it out")

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream without what lies along D."""
        without = ablated(stream, D)
        # The change as a constant: its backward pass is the identity
        return without if self.backward else stream + (without - stream).detach()


def ablated(stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
    """Return a stream without what lies along D, r - D D^T r, in its own dtype."""
    along = D.to(stream)
    return stream - (stream @ along) @ along.mT
