"""Concept ablation: the forward pass of training goes without the directions."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from graspl.constraints.stream import StreamConstraint


@dataclass
class AblationConstraint(StreamConstraint):
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

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream without what lies along D."""
        without = ablated(stream, D)
        # The change as a constant: its backward pass is the identity
        return without if self.mode == "both" else stream + (without - stream).detach()


def ablated(stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
    """Return a stream without what lies along D: r - D D^T r, in its own dtype."""
    along = D.to(stream)
    return stream - (stream @ along) @ along.mT
