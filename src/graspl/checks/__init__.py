"""Checks of a directions file on the base model: what the directions mean, and whether moving along them does it.

This room may import `graspl.activations` and below. Start reading in `causal.py`.
"""

from graspl.checks.causal import CausalCheck, LayerEffect, causal_check
from graspl.checks.causes import CausalOptions, Causes, causes
from graspl.checks.explain import ExplainOptions, Explanation, explain
from graspl.checks.mediation import Mediation, mediation

__all__ = [
    "CausalCheck", "CausalOptions", "Causes", "ExplainOptions", "Explanation", "LayerEffect", "Mediation",
    "causal_check", "causes", "explain", "mediation",
]  # fmt: skip
