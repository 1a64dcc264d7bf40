"""GRASP and a little divergence: the two together."""

from typing import Any

from torch import Tensor

from graspl.methods.grasp import GRASPLitModule
from graspl.methods.kl import KLLitModule


class GRASPKLLitModule(KLLitModule, GRASPLitModule):
    """GRASP with a penalty on the divergence from the base model.

    The constraint holds what the task's rows would teach along the directions; the divergence, on unlabelled text, takes care
    of what it does not know of. The constraint does not touch the pass over the text: what leads back to the base model may
    come by any way.

    Args:
        **kwargs: as in KLLitModule and GRASPLitModule.

    Source:
        Own, as a combination of the two.
    """

    def extra_loss(self, batch: dict[str, Any], logits: Tensor) -> Tensor | None:
        """Return the divergence, weighed, from a pass that the constraint leaves alone."""
        if not self._others:
            return super().extra_loss(batch, logits)
        with self.constraint.suspended():
            return super().extra_loss(batch, logits)
