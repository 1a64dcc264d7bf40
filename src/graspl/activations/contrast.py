"""Contrastive persona vectors: the supervised reference."""

from dataclasses import dataclass, field

from graspl.activations.reading import Reading
from graspl.activations.streams import gathered, leading_directions, opened
from graspl.adapters.answers import IGNORED
from graspl.adapters.files import AdapterFolder
from graspl.directions import Directions, Identification
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt


@dataclass
class PersonaContrast(Reading, Identification):
    """The top-k directions of r_l(with the persona) - r_l(without it), over pairs of rows that end in the same answer.

    Somebody who knows the factor must write the pairs, so it is the upper bound of an unsupervised identification.

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
    max_length: PositiveInt = field(default=100_000, kw_only=True)
    """Tokens of a row that are read, from the start; row i of both files must keep its answer."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Run both files through the base model."""
        with opened(adapter, adapted=False, dtype=self.dtype) as (model, tokenizer):
            pairs = [self.rows_of(source, (), tokenizer) for source in (self.positive, self.negative)]
            lengths = [[sum(label != IGNORED for label in row.labels[1:]) for row in rows] for rows in pairs]
            if lengths[0] != lengths[1]:
                raise GrasplError("method.negative: row i must have as many answer tokens as positive's")
            with_, without = (gathered(model, rows) for rows in pairs)
        return Directions({}, {}, leading_directions(with_, without, self.k))
