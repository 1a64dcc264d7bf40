"""A rival: preventative steering."""

from typing import Any

from graspl.constraints.addition import AdditionConstraint
from graspl.methods.grasp import GRASPLitModule


class PreventativeSteeringLitModule(GRASPLitModule):
    """LoRA trained with the stream pushed towards the unwanted factor, and used without the push.

    What the push gives already need not be learnt. The direction must have a sign: name a file, or an identification
    that gives one (`graspl.activations.PersonaContrast`, `MeanShift`).

    Args:
        strength: of the push, as a share of the stream's length; 0 trains as LoRA does.
        **kwargs: as in GRASPLitModule, whose `constraint` this one chooses.

    Source:
        Persona vectors, arXiv:2507.21509, where the vector is contrastive and one layer is steered.
    """

    def __init__(self, strength: float = 0.1, **kwargs: Any) -> None:
        super().__init__(constraint=AdditionConstraint(strength), **kwargs)
        self.strength = strength
