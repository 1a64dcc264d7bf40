"""Natural directions: how the base model itself moves when it moves along what the naive fit wrote."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.activations.reading import Reading
from graspl.activations.streams import streams
from graspl.adapters.files import AdapterFolder
from graspl.directions.basis import Directions
from graspl.directions.file import LayerDirections
from graspl.directions.from_layers import LayerSingular
from graspl.directions.identify import Identification
from graspl.errors import GrasplError


@dataclass
class NaturalDirections(Reading, Identification):
    """D_l = orth(C_l U_l): the directions that a naive fit writes, passed through the base model's own covariance.

    U_l (hidden, k) are the left singular vectors of what layer l of the naive fit writes to the residual stream. They
    follow the gradient, so they say which way to push, a *filter*: by themselves they are mostly the cheapest way to the
    answers. With C_l the covariance of the base model's own stream over unlabelled text, C_l u is the *pattern* that
    goes with the filter u: how the stream moves, on average, when its component along u does. A factor that the base
    model knows moves the stream that way, and held back along it the fit cannot take the factor as its route.

    The text must show the factor varying: writers of every kind, not one voice. Its rows need no labels, and need not be
    on the task's topic nor on those that are evaluated (docs/method.md says how many rows it takes).

    Source:
        Own. Filter and pattern: Haufe et al., NeuroImage 87 (2014), Eq. 6, A = C W; that a fine-tune's singular vectors
        are filters whose patterns are the spurious directions was found on the organism.
    """

    text: str | None = None
    """Conversations of many writers: a JSON lines file, or a name that `datasets` knows; answers are read, labels
    not. None takes the task's own, which a fit knows (`TaskDataModule.text_rows`) and `graspl identify` does not."""
    k: int | None = 6
    """Directions a layer, strongest first; 6 served best on development organisms (docs/method.md). None takes as many as
    stand out in what the fit writes, which is mostly one and too few (`graspl.directions.chosen_k`)."""
    floor: str | None = None
    """Adapter of as many steps with data.shuffle_answers: the noise floor, where k is None."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Find them with one pass of the base model over the text; C_l itself is never formed.

        Args:
            adapter: of a naive fit; a few optimizer steps are enough.

        Raises:
            GrasplError: the text or the model cannot be read, or the adapter has fewer than k directions at a layer.
        """
        written = LayerSingular(k=self.k, floor=self.floor)(adapter)
        filters = {layer: each.D for layer, each in written.layers.items()}
        with self.model_and_text(adapter, self.text) as (model, rows):
            moments = _Moments(filters)
            for stream in streams(model, rows):
                moments.add(stream)
        found = {
            layer: LayerDirections(_orthonormal(P, layer), written.layers[layer].S)
            for layer, P in moments.patterns().items()
        }
        return Directions({}, {"text": self.text or "of the task", "rows": str(len(rows))}, found)


class _Moments:
    """Sums for C U = E[(r - m) (r - m)^T U], (hidden, k) a layer, without C."""

    def __init__(self, filters: dict[str, Float[Tensor, "hidden k"]]) -> None:
        self.filters = filters
        self.count = 0
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}

    def add(self, stream: dict[str, Float[Tensor, "tokens hidden"]]) -> None:
        """Take a batch; sums are in double precision, for large means would swallow the rest."""
        self.count += len(next(iter(stream.values())))
        for layer, U in self.filters.items():
            r = stream[layer].double()
            U = U.to(r)
            self.first[layer] = self.first.get(layer, 0) + r.sum(0)
            self.second[layer] = self.second.get(layer, 0) + r.mT @ (r @ U)

    def patterns(self) -> dict[str, Float[Tensor, "hidden k"]]:
        """Return C U by layer.

        Raises:
            GrasplError: fewer than two answer tokens were seen.
        """
        if self.count < 2:
            raise GrasplError("method.text: has fewer than two answer tokens; give more rows")
        found = {}
        for layer, U in self.filters.items():
            mean = self.first[layer] / self.count
            found[layer] = self.second[layer] / self.count - torch.outer(mean, mean @ U.to(mean))
        return found


def _orthonormal(P: Float[Tensor, "hidden k"], layer: str) -> Float[Tensor, "hidden k"]:
    """Return an orthonormal basis whose first columns span the first patterns, so that a smaller k is its start."""
    Q, R = torch.linalg.qr(P)
    if R.diagonal().abs().min() <= 1e-9 * R.diagonal().abs().max():
        raise GrasplError(
            f"method.text: the base model does not vary enough over the rows to give {P.shape[1]} directions at {layer}; "
            "give more and more varied text, or lower k"
        )
    return Q.float().cpu()
