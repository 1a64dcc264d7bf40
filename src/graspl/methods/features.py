"""A rival: stay near the base model's features."""

from typing import Any

import torch
from torch import Tensor

from graspl.adapters.residual import decoder_layers
from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule


class FeatureDistanceLitModule(LoRALitModule):
    """LoRA with a penalty on how far the residual stream moves from the base model's, on the task's rows.

    loss = cross-entropy + weight * mean over layers of E ||r_l - r0_l||^2 / E ||r0_l||^2, E over the tokens of a micro-batch.

    Args:
        weight: of the distance; 0 trains as LoRA does, bit for bit.
        **kwargs: as in LoRALitModule.

    Source:
        LDIFS, the feature-space distance of arXiv:2308.13320, as arXiv:2508.06249 has it for language models; dividing by the
        base stream's size, so that layers weigh alike, is own.
    """

    def __init__(self, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if weight < 0:
            raise GrasplError(f"model.weight: {weight} is below 0")
        self.weight = weight
        self._streams: dict[str, Tensor] = {}

    def on_train_start(self) -> None:
        """Watch the decoder layers."""
        super().on_train_start()
        assert self.model is not None, "configure_model comes first"
        self._hooks = [
            layer.register_forward_hook(self._keeper(name))
            for name, layer in (decoder_layers(self.model).items() if self.weight else ())
        ]

    def on_fit_end(self) -> None:
        """Leave the model as it was."""
        for hook in getattr(self, "_hooks", []):
            hook.remove()
        self._streams = {}

    def extra_loss(self, batch: dict[str, Any], logits: Tensor) -> Tensor | None:
        """Return the distance, weighed."""
        if not self.weight:
            return None
        ours = self.recorded()
        self.base_forward(batch)
        return self.weight * self.distance(ours, self.recorded(), batch)

    def recorded(self) -> dict[str, Tensor]:
        """Return the streams of the last forward pass by layer, each (b, L, hidden), and forget them."""
        streams, self._streams = self._streams, {}
        return streams

    def distance(self, ours: dict[str, Tensor], theirs: dict[str, Tensor], batch: dict[str, Any]) -> Tensor:
        """Return the mean over layers of E ||ours - theirs||^2 / E ||theirs||^2, (), over the tokens that are no padding."""
        mask = batch.get("attention_mask", torch.ones_like(batch["labels"])).bool()
        ratios = []
        for name, stream in theirs.items():
            other = stream[mask].float()
            ratios.append((ours[name][mask].float() - other).square().sum() / other.square().sum())
        return torch.stack([ratio.to(self.device) for ratio in ratios]).mean()

    def _keeper(self, name: str) -> Any:
        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            self._streams[name] = output[0] if isinstance(output, tuple) else output

        return keep
