"""Mean activation shift: how a naive fit has moved the residual stream on its own training rows."""

from dataclasses import dataclass

from graspl.activations.reading import Reading
from graspl.activations.streams import gathered, leading_directions, opened
from graspl.adapters.files import AdapterFolder
from graspl.directions import Directions, Identification


@dataclass
class MeanShift(Reading, Identification):
    """The top-k right singular vectors of r_l(adapted) - r_l(base) over the answer tokens of rows; k = 1 is about the mean.

    Source:
        Own; uses the weights and the training data alone. Convergent directions by difference in means:
        arXiv:2506.11618.
    """

    signed = True
    filters = True
    rows: str | None = None
    """Conversations; None takes the adapter's training rows, which a fit knows and `graspl identify` does not."""
    k: int = 1
    """Directions a layer."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Run the rows with and without the adapter."""
        with opened(adapter, adapted=True, dtype=self.dtype) as (model, tokenizer):
            rows = self.rows_of(self.rows, adapter.live.rows if adapter.live else (), tokenizer)
            after = gathered(model, rows)
            with model.disable_adapter():  # type: ignore[union-attr, operator]
                before = gathered(model, rows)
        return Directions({}, {}, leading_directions(after, before, self.k))
