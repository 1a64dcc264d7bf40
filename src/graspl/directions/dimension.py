"""How many directions a spectrum has: gaps, the noise floor of a fit on shuffled answers, effective rank."""

from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.errors import GrasplError


class Dimension(NamedTuple):
    """How many directions of a layer stand out."""

    gap: int  # Those before the largest ratio of neighbouring singular values
    ratio: float  # That ratio
    # Those whose singular value exceeds the noise floor's largest; None without a noise floor.
    above_floor: int | None


def dimension(S: Float[Tensor, " m"], floor: Float[Tensor, " n"] | None = None) -> Dimension:
    """Return how many directions of a spectrum stand out.

    Args:
        S: (m,) singular values, descending, above zero.
        floor: (n,) those of a fit of as many steps on the same rows with shuffled answers.

    Source:
        Own. Parallel analysis (Horn, Psychometrika 30, 1965) compares a spectrum with that of permuted data.
    """
    ratios = S[:-1] / S[1:].clamp_min(torch.finfo(S.dtype).tiny)
    best = int(ratios.argmax()) if len(ratios) else 0
    above = None if floor is None else int((floor[0] < S).sum())
    return Dimension(best + 1, float(ratios[best]) if len(ratios) else float("inf"), above)


def chosen_k(spectra: Mapping[str, Tensor], floor: Mapping[str, Tensor] | None = None) -> int:
    """Return one number of directions for all layers: the median of what stands out at each, at least 1.

    Args:
        spectra: (m,) singular values by layer.
        floor: (n,) those of a fit on shuffled answers, which then decide instead of the gaps.

    Raises:
        GrasplError: the two have other layers.
    """
    if floor is not None and set(floor) != set(spectra):
        raise GrasplError("floor: has other layers than the adapter; train both with the same lora options")
    found = [dimension(S, None if floor is None else floor[layer]) for layer, S in spectra.items()]
    counts = [each.gap if each.above_floor is None else each.above_floor for each in found]
    return max(1, round(median(counts)))


def effective_rank(S: Float[Tensor, " m"]) -> float:
    """Return exp of the entropy of S / sum(S); 0 for an empty spectrum.

    Source:
        Roy and Vetterli, EUSIPCO 2007, Eq. 3.
    """
    if len(S) == 0 or S.sum() == 0:
        return 0.0
    p = S.double() / S.double().sum()
    return float((-(p * p.clamp_min(1e-300).log()).sum()).exp())
