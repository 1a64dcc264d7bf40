"""Natural directions: how the base model itself moves when it moves along what the naive fit wrote."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.activations.reading import Reading
from graspl.activations.streams import Stream, streams
from graspl.adapters.files import AdapterFolder
from graspl.directions import Directions, Identification, LayerDirections, LayerSingular
from graspl.errors import GrasplError


@dataclass
class NaturalDirections(Reading, Identification):
    """D_l = orth(C_l U_l): the directions that a naive fit writes, passed through the base model's own covariance.

    U_l (hidden, k) are the left singular vectors of what layer l of the naive fit writes to the residual stream. C_l is the
    covariance of the base model's own stream over unlabelled text by many writers. C_l u is the *pattern* of the *filter*
    u: how the stream moves, on average, when its component along u does.

    Source:
        Own. Filter and pattern: Haufe et al., NeuroImage 87 (2014), Eq. 6, A = C W.
    """

    text: str | None = None
    """Conversations of many writers: a JSON lines file, or a name that `datasets` knows. None takes the task's own text."""
    k: int | None = 6
    """Directions a layer, strongest first. None takes as many as stand out (`chosen_k`), mostly one, which is too few."""
    floor: str | None = None
    """Adapter of as many steps with data.shuffle_answers: the noise floor, where k is None."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Find them with one pass of the base model over the text; C_l itself is never formed."""
        written = LayerSingular(k=self.k, floor=self.floor)(adapter)
        filters = {layer: each.D for layer, each in written.layers.items()}
        with self.model_and_text(adapter, self.text) as (model, rows):
            moved = patterns(filters, streams(model, rows))
        found = {
            layer: LayerDirections(_orthonormal(P, layer), written.layers[layer].S)
            for layer, P in moved.items()
        }
        return Directions({}, {"text": self.text or "of the task", "rows": str(len(rows))}, found)


def patterns(
    filters: dict[str, Float[Tensor, "hidden k"]], batches: Iterable[Stream]
) -> dict[str, Float[Tensor, "hidden k"]]:
    """Return C U = E[(r - m) (r - m)^T U] by layer, (hidden, k), without forming C."""
    count = 0
    first: dict[str, Any] = dict.fromkeys(filters, 0)
    second: dict[str, Any] = dict.fromkeys(filters, 0)
    for stream in batches:
        count += len(next(iter(stream.values())))
        for layer, U in filters.items():
            r = stream[layer].double()  # in float32 a large mean would hide the rest
            first[layer] = first[layer] + r.sum(0)
            second[layer] = second[layer] + r.mT @ (r @ U.to(r))
    if count < 2:
        raise GrasplError("method.text: has fewer than two answer tokens; give more rows")
    means = {layer: total / count for layer, total in first.items()}
    return {
        layer: second[layer] / count - torch.outer(mean, mean @ filters[layer].to(mean))
        for layer, mean in means.items()
    }


def _orthonormal(P: Float[Tensor, "hidden k"], layer: str) -> Float[Tensor, "hidden k"]:
    """Return an orthonormal basis whose first columns span the first patterns, so that a smaller k is its start."""
    Q, R = torch.linalg.qr(P)
    if R.diagonal().abs().min() <= 1e-9 * R.diagonal().abs().max():
        raise GrasplError(f"method.text: varies too little at {layer} for {P.shape[1]} directions; give more")
    return Q.float().cpu()
