"""A rival: leave training alone, and push the stream away from the factor whenever the model is used."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from graspl.constraints.addition import pushed, require_sign
from graspl.methods.inference_ablation import InferenceAblationLitModule


class InferenceSteeringLitModule(InferenceAblationLitModule):
    """Naive LoRA pushed away from the unwanted factor in every validation: r <- r - strength ||r|| d_l.

    d_l is the layer's first direction, with its sign: an identification that gives one (`graspl.activations.PersonaContrast`,
    `MeanShift`).

    Args:
        strength: of the push, as a share of the stream's length at each token.
        **kwargs: as in InferenceAblationLitModule.

    Source:
        Activation steering at inference, as in persona vectors, arXiv:2507.21509.
    """

    def __init__(self, strength: float = 0.1, **kwargs: Any) -> None:
        super().__init__(k=1, **kwargs)
        self.strength = strength

    def on_validation_start(self) -> None:
        """Change the stream from here.

        Raises:
            GrasplError: no directions are given, or they have no sign.
        """
        if self._loaded_directions is not None:
            require_sign(self._loaded_directions)
        super().on_validation_start()

    def changed(self, stream: Tensor, D: Float[Tensor, "hidden k"]) -> Tensor:
        """Return the stream, pushed away."""
        return pushed(stream, D, -self.strength)
