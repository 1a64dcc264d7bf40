"""Stay near the base model's features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.adapters.residual import decoder_layers
from graspl.adapters.streams import StreamHooks, edit_streams
from graspl.host import Host
from graspl.penalties.base import Penalty

Streams = Mapping[str, Float[Tensor, "rows length hidden"]]


@dataclass
class FeaturePenalty(Penalty):
    """How far the residual stream moves from the base model's on the task's rows.

    The mean over layers of E ||r_l - r0_l||^2 / E ||r0_l||^2, E over the tokens of a micro-batch.

    Source:
        LDIFS, the feature-space distance of arXiv:2308.13320, as arXiv:2508.06249 has it for language models; dividing by the
        base stream's size, so that layers weigh alike, is own.
    """

    weight: float = 1.0
    """Of the distance."""

    def begin(self, host: Host) -> None:
        """Watch the decoder layers."""
        self._watched = Watched(host)

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the distance."""
        ours = self._watched.take()
        host.base_forward(batch)
        return stream_distance(ours, self._watched.take(), batch)

    def end(self) -> None:
        """Watch no longer."""
        if hasattr(self, "_watched"):  # a validation never began
            self._watched.hooks.remove()


class Watched:
    """Keeps the streams of the last training pass by layer, each (b, L, hidden)."""

    def __init__(self, host: Host) -> None:
        assert host.model is not None, "configure_model comes first"
        self._layers = decoder_layers(host.model)
        self._streams: dict[str, Tensor] = {}
        self.hooks: StreamHooks = edit_streams(self._layers, self._keep)

    def take(self) -> dict[str, Tensor]:
        """Return the streams, and forget them."""
        streams, self._streams = self._streams, {}
        return streams

    def _keep(self, name: str, stream: Tensor) -> None:
        if self._layers[name].training:
            self._streams[name] = stream


def stream_distance(ours: Streams, theirs: Streams, batch: dict[str, Any]) -> Tensor:
    """Return the mean over layers of E ||ours - theirs||^2 / E ||theirs||^2, (), over the tokens that are no padding.

    Args:
        ours: (b, L, hidden) by layer.
        theirs: the same of another pass.
        batch: with `labels`, and `attention_mask` where rows are padded.
    """
    mask = batch.get("attention_mask", torch.ones_like(batch["labels"])).bool()
    ratios = []
    for name, stream in theirs.items():
        other = stream[mask].float()
        ratios.append((ours[name][mask].float() - other).square().sum() / other.square().sum())
    return torch.stack([ratio.to(mask.device) for ratio in ratios]).mean()
