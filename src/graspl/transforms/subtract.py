"""Direct subtraction: the directions are taken out of the finished weights. A control."""

from dataclasses import dataclass
from typing import ClassVar

from graspl.constraints.base import FactorConstraint
from graspl.errors import GrasplError
from graspl.host import Host
from graspl.transforms.base import Transform


@dataclass
class Subtract(Transform):
    """Projects the finished factors onto a constraint that training did not hold.

    A reader of GRASP asks for this ablation first: is it the training in the null space that matters, or would removing the
    direction afterwards do?

    Source:
        Own, as a control.
    """

    constraint: FactorConstraint
    """Write, read, pair or residual; an activation constraint has no step to project, so it is refused."""

    needs_directions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.constraint, FactorConstraint):
            why = f"{type(self.constraint).__name__} does not act on factors, so it would subtract nothing"
            raise GrasplError(f"Subtract.constraint: {why}; use one on factors, such as WriteConstraint")
        self._is_bound = False

    def begin(self, host: Host) -> None:
        """Take the bases of the adapter's sites."""
        assert host.directions_in_use is not None, "LoRALitModule finds directions first"
        self.constraint.bind(host.sites, host.directions_in_use)
        self._is_bound = True

    def apply(self, host: Host) -> None:
        """Take the directions out of the factors; before training starts there is nothing to take out."""
        if self._is_bound:
            self.constraint.project_step(host.sites)
