"""Null-space constraints on LoRA factors and on the residual stream: pure tensor maths, no Lightning.

This room may import `graspl.edits`, `graspl.directions` and below. Start reading in `base.py`.
"""

from graspl.constraints.activation import ActivationConstraint
from graspl.constraints.base import Constraint, FactorConstraint, HeldFactor, StreamConstraint
from graspl.constraints.held import Held, default_constraints
from graspl.constraints.pair import PairConstraint
from graspl.constraints.read import ReadConstraint
from graspl.constraints.residual import ResidualConstraint
from graspl.constraints.sharded import Rider, along, project_together, subtract
from graspl.constraints.write import WriteConstraint

__all__ = [
    "ActivationConstraint", "Constraint", "FactorConstraint", "Held", "HeldFactor", "PairConstraint",
    "ReadConstraint", "ResidualConstraint", "Rider", "StreamConstraint", "WriteConstraint", "along",
    "default_constraints", "project_together", "subtract",
]  # fmt: skip
