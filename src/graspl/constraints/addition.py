"""Preventative steering: while training, the stream is pushed along a direction, so that the weights need not."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from graspl.adapters.sites import Site
from graspl.constraints.stream import StreamConstraint
from graspl.directions.basis import Directions
from graspl.errors import GrasplError

UNSIGNED = frozenset({"NaturalDirections", "PrincipalDirections", "LayerSingular"})
"""Identifications whose directions have no sign."""


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
        require_sign(self._bound)

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream, pushed."""
        return pushed(stream, D, self.strength)


def require_sign(directions: Directions) -> None:
    """Check that directions have a sign.

    Raises:
        GrasplError: they come from an identification that gives none.
    """
    if (found := directions.metadata.get("identification")) in UNSIGNED:
        raise GrasplError(
            f"constraint: {found} gives directions without a sign, and half of them would push the wrong way; take "
            "PersonaContrast or MeanShift"
        )


def pushed(stream: Tensor, D: Float[Tensor, "hidden k"], strength: float) -> Tensor:
    """Return a stream plus strength times its own length along the first direction; the length without gradient."""
    if not strength or not D.shape[1]:
        return stream
    return stream + strength * stream.detach().norm(dim=-1, keepdim=True) * D[:, 0].to(stream)
