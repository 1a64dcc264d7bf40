"""Keep what the model remembers of the chat template."""

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from graspl.adapters.forward import ONE_PLACE
from graspl.adapters.switch import adapter_off
from graspl.errors import GrasplError
from graspl.host import Host
from graspl.penalties.base import Penalty


@dataclass
class DriftPenalty(Penalty):
    """How far keys and values of the tokens that open every row move from the base model's.

    The mean over layers, keys and values of ||K - K0||^2 / ||K0||^2. The tokens are those that all training rows begin with:
    the chat template's, before anything that a user wrote. They need no text, and one short pass a batch.

    Source:
        The drift penalty on the template's prefix of TReFT, arXiv:2606.06667, from its summary; the normalisation is own.
    """

    weight: float = 1.0
    """Of the drift."""

    def begin(self, host: Host) -> None:
        """Find the tokens, and keep the base model's keys and values."""
        rows = [row.input_ids for row in host.trainer.datamodule.train_conversations()]
        same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False))
        prefix = [tokens[0] for tokens in same]
        if not prefix:
            fix = "use a chat template that does, or another penalty"
            raise GrasplError(f"DriftPenalty: the training rows do not begin with the same tokens; {fix}")
        self._ids = torch.tensor([prefix], device=host.device)
        assert host.model is not None, "configure_model comes first"
        with torch.no_grad(), adapter_off(host.model), host.unedited():
            self._before = self._remembered(host)

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the drift."""
        with host.unedited():
            now = self._remembered(host)
        moved = [
            (ours.float() - theirs.float()).square().sum() / theirs.float().square().sum()
            for ours, theirs in zip(now, self._before, strict=True)
        ]
        return torch.stack([each.to(host.device) for each in moved]).mean()

    def _remembered(self, host: Host) -> list[Tensor]:
        """Return the keys and values of every layer."""
        model: Any = host.model
        cache = model(input_ids=self._ids, use_cache=True, logits_to_keep=ONE_PLACE).past_key_values
        layers = getattr(cache, "layers", None)
        if not layers or any(not hasattr(layer, "keys") for layer in layers):
            raise GrasplError("DriftPenalty: the model keeps no keys and values; use another penalty")
        return [tensor for layer in layers for tensor in (layer.keys, layer.values)]
