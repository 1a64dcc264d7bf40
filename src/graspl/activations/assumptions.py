"""The assumption report: may the directions be believed, for this adapter and this text?"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.activations.steering import explained, naturalness, pull_of_answers
from graspl.activations.streams import gathered, opened
from graspl.adapters import AdapterFolder
from graspl.data.tokens import TokenizedConversation
from graspl.directions import (
    Directions,
    LayerDirections,
    dimension,
    effective_rank,
    residual_spectra,
    writers_agree,
)

# Below it directions are the fit's own (filters), not the base model's. Development organisms: 0.9 against 0.2.
NATURAL = 0.5
# Below the first the directions do not hold the factor, from the second on they do. Development organisms.
EXPLAINED = (0.75, 0.87)
ROWS = 64  # Training rows that are steered
STEERED = 8  # Layers that are steered, from the first to the last: at each the rows are run three times

Verdict = Literal["identifiable", "doubtful", "not"]


class LayerCheck(NamedTuple):
    """The theorem's conditions at one layer, as numbers."""

    share: float  # Spectral dominance: sigma_1 / ||dW||_F of what the layer writes
    gap: float  # The largest ratio of neighbouring singular values
    gap_at: int  # Number of singular values before that gap
    # Singular values above the noise floor's first; None without a fit on shuffled answers.
    above_floor: int | None
    writers_agree: float  # Mean squared cosine between the first left singular vectors of the layer's writers
    # Mean squared cosine of the first left singular vector with that of other seeds; None without any.
    seeds_agree: float | None
    rest_rank: float  # Effective rank of the spectrum without its first value (exp of the entropy)
    overlap: float | None  # Share of the update that lies along the directions, ||D^T dW||_F^2 / ||dW||_F^2
    naturalness: float | None  # How far the directions are the base model's own, 0..1; None without text
    # Share of the answers' loss that natural steps along the directions remove, 0..1; None without rows, and at layers
    # that were not steered.
    explained: float | None


class AssumptionReport(NamedTuple):
    """All layers' checks and what they say together."""

    layers: dict[str, LayerCheck]  # By layer
    verdict: Verdict  # Whether the directions may be believed to hold the factor
    reason: str  # Why, in a sentence

    def plain(self) -> dict[str, Any]:
        """Return plain values for a JSON file; an infinite gap becomes None."""
        layers = {
            name: {key: None if value == math.inf else value for key, value in check._asdict().items()}
            for name, check in self.layers.items()
        }
        return {"verdict": self.verdict, "reason": self.reason, "layers": layers}


def check_assumptions(
    adapter: AdapterFolder,
    directions: Directions,
    *,
    rows: Sequence[TokenizedConversation] = (),
    text: Sequence[TokenizedConversation] = (),
    floor: AdapterFolder | None = None,
    others: Sequence[AdapterFolder] = (),
    dtype: str = "auto",
) -> AssumptionReport:
    """Check the conditions under which directions hold the spurious factor.

    Args:
        adapter: of the naive fit.
        directions: found in it; their layers are checked.
        rows: training rows; without rows and text the verdict is at best doubtful.
        text: unlabelled text.
        floor: an adapter of as many steps on shuffled answers.
        others: adapters of other seeds.
        dtype: of the base model's weights.

    Raises:
        GrasplError: an adapter has no writers, or the base model cannot be loaded.

    Source:
        Own. Spectral dominance, agreement and low rank (claim 1 of arXiv:2605.27676) do not suffice (docs/method.md).
    """
    spectra, agree = residual_spectra(adapter), writers_agree(adapter)
    floors = residual_spectra(floor) if floor is not None else {}
    seeds = [residual_spectra(other) for other in others]
    natural, gains = _ask_model(adapter, directions, rows, text, dtype)
    layers = {}
    for name, written in spectra.items():
        size = dimension(written.S, floors[name].S if name in floors else None)
        layers[name] = LayerCheck(
            share=float(written.S[0] / written.S.norm()),
            gap=size.ratio,
            gap_at=size.gap,
            above_floor=size.above_floor,
            writers_agree=agree[name],
            seeds_agree=_with_seeds(written, [each[name] for each in seeds]),
            rest_rank=effective_rank(written.S[1:]),
            overlap=_overlap(written, directions.layers[name].D) if name in directions.layers else None,
            naturalness=natural.get(name),
            explained=gains.get(name),
        )
    return AssumptionReport(layers, *_verdict(natural, gains))


def _ask_model(
    adapter: AdapterFolder,
    directions: Directions,
    rows: Sequence[TokenizedConversation],
    text: Sequence[TokenizedConversation],
    dtype: str,
) -> tuple[dict[str, float], dict[str, float]]:
    if not text or not directions.layers:
        return {}, {}
    bases = {name: layer.D for name, layer in directions.layers.items()}
    with opened(adapter, adapted=False, dtype=dtype) as (model, _):
        stream = gathered(model, text)
        natural = {name: naturalness(D, stream[name]) for name, D in bases.items()}
        if not rows:
            return natural, {}
        _, pulls = pull_of_answers(model, rows[:ROWS])
        asked = {name: bases[name] for name in spread_out(list(bases), STEERED)}
        return natural, explained(model, rows[:ROWS], pulls, asked, stream)


def spread_out(names: Sequence[str], count: int) -> list[str]:
    """Return so many of the names, evenly spread and with both ends; all where there are no more."""
    places = torch.linspace(0, len(names) - 1, min(count, len(names))).round().tolist()
    return [names[int(place)] for place in places]


def _verdict(natural: Mapping[str, float], gains: Mapping[str, float]) -> tuple[Verdict, str]:
    if not natural or not gains:
        return "doubtful", "weights alone cannot tell a known factor from a shortcut; give rows and text"
    kind, gain = fmean(natural.values()), median(gains.values())
    if kind < NATURAL:
        why = f"naturalness {kind:.2f} is below {NATURAL}: the base model hardly varies along them"
        return "not", f"{why}; use NaturalDirections"
    low, high = EXPLAINED
    how = f"natural steps along the directions remove {gain:.0%} of the answers' loss"
    if gain >= high:
        return "identifiable", f"{how}, so a factor that the base model knows explains them"
    if gain < low:
        return "not", f"{how}, below {low:.0%}: the text does not show the factor; give text by more writers"
    return "doubtful", f"{how}, between {low:.0%} and {high:.0%}; give text by more writers"


def _with_seeds(written: LayerDirections, others: Sequence[LayerDirections]) -> float | None:
    return fmean(float((written.D[:, 0] @ other.D[:, 0]).square()) for other in others) if others else None


def _overlap(written: LayerDirections, D: Float[Tensor, "hidden k"]) -> float:
    along = D.to(written.D).mT @ (written.D * written.S)
    return float(along.square().sum() / written.S.square().sum())
