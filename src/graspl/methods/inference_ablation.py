"""A rival: leave training alone, and take the directions out of the stream whenever the model is used."""

from typing import Any

from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from graspl.adapters.options import LoraOptions
from graspl.adapters.residual import decoder_layers
from graspl.constraints.ablation import ablated
from graspl.constraints.unconstrained import Unconstrained
from graspl.errors import GrasplError
from graspl.methods.grasp import GRASPLitModule
from graspl.methods.lora import default_optimizer


class InferenceAblationLitModule(GRASPLitModule):
    """Naive LoRA whose residual stream is projected off D_l behind every layer in every validation: r <- r - D_l D_l^T r.

    Whoever uses the model must do the same: the adapter alone is the naive one. The base model, which the divergence is
    taken from, is left as it is. The directions come from a file or from within the fit, as GRASP's do.

    Args:
        k: directions a layer, all that there are where None.
        lora: as in LoRALitModule.
        optimizer: as in LoRALitModule.
        **kwargs: as in GRASPLitModule, whose `constraint` this one chooses.

    Source:
        Directional ablation, Arditi et al., arXiv:2406.11717, with directions of any identification.
    """

    def __init__(
        self,
        k: int | None = None,
        lora: LoraOptions = LoraOptions(),  # noqa: B008 - never changed
        optimizer: OptimizerCallable = default_optimizer,
        **kwargs: Any,
    ) -> None:
        super().__init__(constraint=Unconstrained(), lora=lora, optimizer=optimizer, **kwargs)
        self.k = k
        self._hooks: list[Any] = []
        self._changes = True

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream as the next layer shall see it.

        Args:
            stream: (b, L, hidden).
            D: (hidden, k), the layer's directions.
        """
        return ablated(stream, D)

    def on_validation_start(self) -> None:
        """Change the stream from here; Lightning's check before a fit comes before there are directions.

        Raises:
            GrasplError: no directions are given.
        """
        if self._loaded_directions is None:
            if self.trainer.sanity_checking:
                return
            raise GrasplError("model.directions: a validation needs a directions file; run graspl identify")
        assert self.model is not None, "configure_model comes first"
        layers = decoder_layers(self.model)
        bases = self._loaded_directions.layer_bases(list(layers), k=self.k)
        self._hooks = [
            layer.register_forward_hook(self._changer(D))
            for layer, D in zip(layers.values(), bases, strict=True)
        ]

    def on_validation_end(self) -> None:
        """Change it no longer; answers in own words were written before."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def base_forward(self, batch: dict[str, Any]) -> Tensor:
        """Return the base model's logits, from its own stream."""
        self._changes = False
        try:
            return super().base_forward(batch)
        finally:
            self._changes = True

    def _changer(self, D: Tensor) -> Any:
        def change(_module: Any, _inputs: Any, output: Any) -> Any:
            if not self._changes:
                return None
            stream = output[0] if isinstance(output, tuple) else output
            after = self.changed(stream, D)
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return change
