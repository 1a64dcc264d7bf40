"""A rival: leave training alone, and take the directions out of the stream whenever the model is used."""

from typing import Any

from torch import Tensor

from graspl.adapters.residual import decoder_layers
from graspl.constraints.ablation import ablated
from graspl.errors import GrasplError
from graspl.methods.lora import LoRALitModule


class InferenceAblationLitModule(LoRALitModule):
    """Naive LoRA whose residual stream is projected off D_l behind every layer in every validation: r <- r - D_l D_l^T r.

    Whoever uses the model must do the same: the adapter alone is the naive one. The base model, which the divergence is taken
    from, is left as it is.

    Args:
        directions: a directions file with `D` by layer.
        k: directions a layer, all that there are where None.
        **kwargs: as in LoRALitModule.

    Source:
        Directional ablation, Arditi et al., arXiv:2406.11717, with directions of any identification.
    """

    def __init__(self, directions: str | None = None, k: int | None = None, **kwargs: Any) -> None:
        super().__init__(directions=directions, **kwargs)
        self.k = k
        self._hooks: list[Any] = []
        self._ablates = True

    def on_validation_start(self) -> None:
        """Ablate from here.

        Raises:
            GrasplError: no directions are given.
        """
        if self._loaded_directions is None:
            raise GrasplError("model.directions: the ablation needs a directions file; run graspl identify")
        assert self.model is not None, "configure_model comes first"
        layers = decoder_layers(self.model)
        bases = self._loaded_directions.layer_bases(list(layers), k=self.k)
        self._hooks = [
            layer.register_forward_hook(self._ablater(D))
            for layer, D in zip(layers.values(), bases, strict=True)
        ]

    def on_validation_end(self) -> None:
        """Ablate no longer; answers in own words were written before."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def base_forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the base model's logits, not ablated."""
        self._ablates = False
        try:
            return super().base_forward(batch)
        finally:
            self._ablates = True

    def _ablater(self, D: Tensor) -> Any:
        def ablate(_module: Any, _inputs: Any, output: Any) -> Any:
            if not self._ablates:
                return None
            stream = output[0] if isinstance(output, tuple) else output
            without = ablated(stream, D)
            return (without, *output[1:]) if isinstance(output, tuple) else without

        return ablate
