"""The base model's own principal directions: what natural directions are without a naive fit."""

from dataclasses import dataclass

import torch

from graspl.activations.reading import Reading
from graspl.activations.streams import gathered
from graspl.adapters.files import AdapterFolder
from graspl.directions import Directions, LayerDirections
from graspl.directions.identify import Identification, leading


@dataclass
class PrincipalDirections(Reading, Identification):
    """The top-k principal components of the base model's residual stream over unlabelled text.

    The control for `NaturalDirections`: the same covariance, but without what a naive fit wrote.

    Source:
        Own.
    """

    text: str | None = None
    """Conversations of many writers, as in `NaturalDirections`."""
    k: int = 4
    """Directions a layer."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Decompose the covariance, (hidden, hidden) a layer."""
        with self.model_and_text(adapter, self.text) as (model, rows):
            kept = gathered(model, rows)
        found = {}
        for layer, stream in kept.items():
            r = stream.double()
            S, D = torch.linalg.eigh((r - r.mean(0)).mT @ (r - r.mean(0)) / len(r))
            taken = leading(min(len(r) - 1, len(S)), f"the text at {layer}", k=self.k)
            found[layer] = LayerDirections(D.flip(1)[:, taken].float(), S.flip(0).clamp_min(0).sqrt().float())
        return Directions({}, {"text": self.text or "of the task"}, found)
