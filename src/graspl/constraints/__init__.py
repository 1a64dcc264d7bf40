"""Null-space constraints on LoRA factors: pure tensor maths, no Lightning.

This room may import `graspl.directions` and below. Start reading in `projection.py`.
"""

from graspl.constraints.ablation import AblationConstraint
from graspl.constraints.activation import ActivationConstraint
from graspl.constraints.addition import AdditionConstraint
from graspl.constraints.base import Constraint
from graspl.constraints.combined import CombinedConstraint, default_constraint
from graspl.constraints.jacobian import JacobianConstraint
from graspl.constraints.pair import PairConstraint
from graspl.constraints.projection import project_in_place, project_onto_complement
from graspl.constraints.read import ReadConstraint
from graspl.constraints.residual import ResidualConstraint
from graspl.constraints.sharded import along, project_together, subtract, travelling
from graspl.constraints.unconstrained import Unconstrained
from graspl.constraints.write import WriteConstraint

__all__ = [
    "AblationConstraint",
    "ActivationConstraint",
    "AdditionConstraint",
    "CombinedConstraint",
    "Constraint",
    "JacobianConstraint",
    "PairConstraint",
    "ReadConstraint",
    "ResidualConstraint",
    "Unconstrained",
    "WriteConstraint",
    "along",
    "default_constraint",
    "project_in_place",
    "project_onto_complement",
    "project_together",
    "subtract",
    "travelling",
]
