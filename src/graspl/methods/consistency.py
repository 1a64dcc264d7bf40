"""A rival: be the same after an undesirable update."""

from typing import Any

import torch
from torch import Tensor

from graspl.errors import GrasplError
from graspl.methods.features import FeatureDistanceLitModule
from graspl.methods.loss import summed_loss


class UndesirableConsistencyLitModule(FeatureDistanceLitModule):
    """LoRA with a penalty on how far one step of gradient ascent on the residual streams moves the streams.

    g_l = dLoss/dr_l of the step's loss; an auxiliary forward pass has r_l + step * ||r_l|| g_l / ||g_l|| behind every layer;
    loss = cross-entropy + weight * mean over layers of  E ||r_l(auxiliary) - r_l||^2 / E ||r_l||^2.

    Args:
        step: of the ascent, as a share of the stream's length at each token.
        weight: of the distance; 0 trains as LoRA does, bit for bit.
        **kwargs: as in LoRALitModule.

    Source:
        Learning from the undesirable, arXiv:2511.13052: its variant that steers representations in place of an
        auxiliary LoRA. The relative step and the normalised distance are own. It costs a second forward and half a
        backward pass.
    """

    def __init__(self, step: float = 0.05, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(weight=weight, **kwargs)
        if step <= 0:
            raise GrasplError(f"model.step: {step} is not above 0")
        self.step = step
        self._pushes: dict[str, Tensor] = {}

    def refuse_flat_shards(self) -> None:
        """Refuse FSDP1, which frees a layer's weights after one backward pass."""
        super().refuse_flat_shards()
        raise GrasplError(
            "trainer.strategy: UndesirableConsistencyLitModule takes two gradients of one forward pass, which FSDP1 does not "
            "allow; take DDP (configs/trainer/ddp.yaml) or FSDP2 (configs/trainer/fsdp.yaml)"
        )

    def extra_loss(self, batch: dict[str, Any], logits: Tensor) -> Tensor | None:
        """Return the distance between the two passes, weighed."""
        if not self.weight:
            return None
        ours = self.recorded()
        total, tokens = summed_loss(logits, batch["labels"])
        ascent = torch.autograd.grad(total / tokens.clamp_min(1), list(ours.values()), retain_graph=True)
        self._pushes = {
            name: self.step
            * stream.detach().norm(dim=-1, keepdim=True)
            * torch.nn.functional.normalize(g, dim=-1)
            for (name, stream), g in zip(ours.items(), ascent, strict=True)
        }
        try:
            self(batch)
        finally:
            self._pushes = {}
        return self.weight * self.distance(self.recorded(), ours, batch)

    def _keeper(self, name: str) -> Any:
        def keep(_module: Any, _inputs: Any, output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            if name not in self._pushes:
                self._streams[name] = stream
                return None
            self._streams[name] = stream = stream + self._pushes[name]
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return keep
