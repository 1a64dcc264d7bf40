"""Contrastive persona vectors: the supervised reference."""

from collections.abc import Sequence
from dataclasses import dataclass

from graspl.activations.streams import gathered, leading_directions, opened, tokenized
from graspl.adapters.answers import IGNORED
from graspl.adapters.files import AdapterFolder
from graspl.data.tokens import TokenizedConversation
from graspl.directions.basis import Directions
from graspl.directions.identify import Identification
from graspl.errors import GrasplError


@dataclass
class PersonaContrast(Identification):
    """The top-k directions of r_l(with the persona) - r_l(without it), over pairs of rows that end in the same answer.

    It needs somebody who knows the factor and writes the pairs (say, a system prompt for it and one against it), so it is
    no rival of an unsupervised identification but its upper bound.

    Source:
        Difference in means of persona vectors (arXiv:2507.21509, section 2.2); pairs and more than one direction are own.
    """

    signed = True
    positive: str
    """Conversations with the persona."""
    negative: str
    """The same number without it; row i has as many answer tokens as row i of `positive`."""
    k: int = 1
    """Directions a layer."""
    limit: int = 256
    """Pairs that are read, from the start."""
    dtype: str = "auto"
    """Of the base model's weights, where it must be loaded."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Run both files through the base model.

        Raises:
            GrasplError: a file cannot be read, or the rows are no pairs.
        """
        with opened(adapter, adapted=False, dtype=self.dtype) as (model, tokenizer):
            pairs = [
                tokenized(source, tokenizer, limit=self.limit, max_length=100_000)
                for source in (self.positive, self.negative)
            ]
            lengths = [_answer_lengths(rows) for rows in pairs]
            if lengths[0] != lengths[1]:
                raise GrasplError(
                    f"method.negative: {self.negative} and {self.positive} are no pairs: row i of both must have as many "
                    "answer tokens"
                )
            with_, without = (gathered(model, rows) for rows in pairs)
        found = leading_directions({layer: r - without[layer] for layer, r in with_.items()}, self.k)
        return Directions({}, {}, found)


def _answer_lengths(rows: Sequence[TokenizedConversation]) -> list[int]:
    return [sum(label != IGNORED for label in row.labels[1:]) for row in rows]
