"""Preventative steering: while training, the stream is pushed along a direction, so that the weights need not."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from graspl.adapters.sites import Site
from graspl.constraints.stream import StreamConstraint
from graspl.directions.basis import Directions
from graspl.errors import GrasplError


@dataclass
class AdditionConstraint(StreamConstraint):
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

    k = 1

    def bind(self, sites: Sequence[Site], directions: Directions) -> None:
        """Take the layers' first directions.

        Raises:
            GrasplError: they have no sign.
        """
        super().bind(sites, directions)
        if self._bound.metadata.get("identification") in (
            "NaturalDirections",
            "PrincipalDirections",
            "LayerSingular",
        ):
            raise GrasplError(
                f"constraint: {self._bound.metadata['identification']} gives directions without a sign, and half of them "
                "would push the wrong way; take PersonaContrast or MeanShift"
            )

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream, pushed."""
        if not self.strength:
            return stream
        return stream + self.strength * stream.detach().norm(dim=-1, keepdim=True) * D[:, 0].to(stream)
