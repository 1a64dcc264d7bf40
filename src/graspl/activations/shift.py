"""Mean activation shift: how a naive fit has moved the residual stream on its own training rows."""

from dataclasses import dataclass

from graspl.activations.streams import gathered, leading_directions, opened, tokenized
from graspl.adapters.files import AdapterFolder
from graspl.directions.basis import Directions
from graspl.directions.identify import Identification
from graspl.errors import GrasplError


@dataclass
class MeanShift(Identification):
    """The top-k right singular vectors of r_l(adapted) - r_l(base) over the answer tokens of rows; k = 1 is about the mean.

    Source:
        Own; uses the weights and the training data alone. Convergent directions by difference in means:
        arXiv:2506.11618.
    """

    signed = True
    filters = True
    rows: str | None = None
    """Conversations; None takes what the adapter is trained on, which a fit knows and `graspl identify` does not."""
    k: int = 1
    """Directions a layer."""
    limit: int = 256
    """Rows that are read, from the start."""
    max_length: int = 1024
    """Tokens of a row that are read, from the start."""
    dtype: str = "auto"
    """Of the base model's weights, where it must be loaded."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Run the rows with and without the adapter.

        Raises:
            GrasplError: the rows or the model cannot be read, none are known, or k exceeds what they span.
        """
        with opened(adapter, adapted=True, dtype=self.dtype) as (model, tokenizer):
            if self.rows is not None:
                rows = tokenized(self.rows, tokenizer, limit=self.limit, max_length=self.max_length)
            elif adapter.live is not None:
                rows = list(adapter.live.rows)[: self.limit]
            else:
                raise GrasplError("method.rows: names no rows; give the file that the adapter was trained on")
            after = gathered(model, rows)
            with model.disable_adapter():  # type: ignore[union-attr, operator]
                before = gathered(model, rows)
        found = leading_directions({layer: r - before[layer] for layer, r in after.items()}, self.k)
        return Directions({}, {}, found)
