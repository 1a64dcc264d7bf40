"""Be the same after an undesirable update."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from graspl.adapters.loss import summed_loss_at
from graspl.adapters.residual import decoder_layers
from graspl.adapters.streams import edit_streams
from graspl.errors import GrasplError
from graspl.host import Host
from graspl.penalties.base import Penalty
from graspl.penalties.features import Watched, stream_distance


@dataclass
class ConsistencyPenalty(Penalty):
    """How far one step of gradient ascent on the residual streams moves the streams.

    With g_l = dLoss/dr_l, an auxiliary forward pass has r_l + step * ||r_l|| g_l / ||g_l|| after every layer. The term is the
    mean over layers of E ||r_l(auxiliary) - r_l||^2 / E ||r_l||^2.

    Source:
        Learning from the undesirable, arXiv:2511.13052: its variant that steers representations instead of an auxiliary
        LoRA. The relative step and the normalised distance are own. It costs a second forward and half a backward pass.
    """

    weight: float = 1.0
    """Of the distance."""
    step: float = 0.05
    """Of the ascent, as a share of the stream's length at each token."""

    flat_shards: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step <= 0:
            raise GrasplError(f"ConsistencyPenalty.step: {self.step} is not above 0")

    def begin(self, host: Host) -> None:
        """Watch the decoder layers."""
        self._watched = Watched(host)

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the distance between the two passes."""
        assert host.model is not None, "configure_model comes first"
        ours = self._watched.take()
        total, tokens = summed_loss_at(logits, batch)
        ascent = torch.autograd.grad(total / tokens.clamp_min(1), list(ours.values()), retain_graph=True)
        pushes = {
            name: self.step
            * stream.detach().norm(dim=-1, keepdim=True)
            * torch.nn.functional.normalize(g, dim=-1)
            for (name, stream), g in zip(ours.items(), ascent, strict=True)
        }
        auxiliary: dict[str, Tensor] = {}

        def push(name: str, stream: Tensor) -> Tensor:
            auxiliary[name] = stream + pushes[name]
            return auxiliary[name]

        with edit_streams(decoder_layers(host.model), push):
            host(batch)
        self._watched.take()
        return stream_distance(auxiliary, ours, batch)

    def end(self) -> None:
        """Watch no longer."""
        if hasattr(self, "_watched"):  # a validation never began
            self._watched.hooks.remove()
