"""A rival: concept ablation fine-tuning."""

from typing import Any, Literal

from graspl.constraints.ablation import AblationConstraint
from graspl.constraints.activation import ActivationConstraint
from graspl.constraints.base import Constraint
from graspl.methods.grasp import GRASPLitModule


class CAFTLitModule(GRASPLitModule):
    """LoRA trained with the residual stream ablated along directions, and evaluated without.

    The directions come from a file or from within the fit, by any identification, as GRASP's do.

    Args:
        k: directions a layer; all that there are where None.
        mode: ablate the forward pass and with it the gradients (`both`), the forward pass alone, or the gradients alone.
        **kwargs: as in GRASPLitModule, whose `constraint` this one chooses.

    Source:
        arXiv:2507.16795, where the directions are principal components or SAE latents that people chose for their meaning;
        here they are chosen by the identification. The gradient-only variant is an ablation of its authors.
    """

    def __init__(
        self, k: int | None = 6, mode: Literal["both", "forward", "gradient"] = "both", **kwargs: Any
    ) -> None:
        made: Constraint = (
            ActivationConstraint(k=k) if mode == "gradient" else AblationConstraint(k=k, mode=mode)
        )
        super().__init__(constraint=made, **kwargs)
        self.mode = mode
