"""The base model's own principal directions: what natural directions are without a naive fit."""

from dataclasses import dataclass

import torch

from graspl.activations.streams import gathered, opened, text_of
from graspl.adapters.files import AdapterFolder
from graspl.directions.basis import Directions
from graspl.directions.file import LayerDirections
from graspl.directions.identify import Identification
from graspl.errors import GrasplError


@dataclass
class PrincipalDirections(Identification):
    """The top-k principal components of the base model's residual stream over unlabelled text.

    It knows nothing of the task: the control that `NaturalDirections` must be compared with, which pass what a naive fit
    wrote through the same covariance.

    Source:
        Own.
    """

    text: str | None = None
    """Conversations of many writers, as in `NaturalDirections`."""
    k: int = 4
    """Directions a layer."""
    limit: int = 256
    """Rows that are read, from the start."""
    max_length: int = 1024
    """Tokens of a row that are read, from the start."""
    dtype: str = "auto"
    """Of the base model's weights, where it must be loaded."""

    def find(self, adapter: AdapterFolder) -> Directions:
        """Decompose the covariance, (hidden, hidden) a layer.

        Raises:
            GrasplError: the text or the model cannot be read, or k exceeds what the text spans.
        """
        with opened(adapter, adapted=False, dtype=self.dtype) as (model, tokenizer):
            rows = text_of(adapter, self.text, tokenizer, limit=self.limit, max_length=self.max_length)
            kept = gathered(model, rows)
        found = {}
        for layer, stream in kept.items():
            r = stream.double()
            S, D = torch.linalg.eigh((r - r.mean(0)).mT @ (r - r.mean(0)) / len(r))
            if not 1 <= self.k <= min(r.shape[0] - 1, r.shape[1]):
                raise GrasplError(
                    f"method.k: {self.k} directions do not fit into {tuple(r.shape)} activations at {layer}"
                )
            found[layer] = LayerDirections(
                D.flip(1)[:, : self.k].float().contiguous(), S.flip(0).clamp_min(0).sqrt().float()
            )
        return Directions({}, {"text": self.text or "of the task"}, found)
