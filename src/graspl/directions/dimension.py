"""How many directions: gaps of a spectrum, and the noise floor of a fit on shuffled answers."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.directions.from_layers import Written
from graspl.errors import GrasplError


class Dimension(NamedTuple):
    """How many directions of a layer stand out."""

    gap: int
    """Those before the largest ratio of neighbouring singular values."""
    ratio: float
    """That ratio."""
    above_floor: int | None
    """Those whose singular value exceeds the noise floor's largest; None without a noise floor."""


def dimension(S: Float[Tensor, " m"], floor: Float[Tensor, " n"] | None = None) -> Dimension:
    """Return how many directions of a spectrum stand out.

    Args:
        S: (m,) singular values, descending, above zero.
        floor: (n,) those of a fit of as many steps on the same rows with their answers dealt out anew, in which nothing
            that answers have to do with questions can be learnt.

    Source:
        Own. Parallel analysis (Horn, Psychometrika 30, 1965) compares a spectrum with that of permuted data.
    """
    ratios = S[:-1] / S[1:].clamp_min(torch.finfo(S.dtype).tiny)
    best = int(ratios.argmax()) if len(ratios) else 0
    above = None if floor is None else int((floor[0] < S).sum())
    return Dimension(best + 1, float(ratios[best]) if len(ratios) else float("inf"), above)


def dimensions(
    written: Mapping[str, Written], floor: Mapping[str, Written] | None = None
) -> dict[str, Dimension]:
    """Return the dimension of each layer.

    Args:
        written: of the naive adapter, by layer (`residual_spectra`).
        floor: of the adapter on shuffled answers.

    Raises:
        GrasplError: the two adapters have other layers.
    """
    if floor is not None and set(floor) != set(written):
        raise GrasplError(
            "floor: has other layers than the adapter; train both on one base model with the same lora options"
        )
    return {
        layer: dimension(each.S, None if floor is None else floor[layer].S) for layer, each in written.items()
    }
