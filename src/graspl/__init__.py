"""Fine-tune language models for the skill without the side effect.

Importing this package imports nothing heavy: the public names are loaded when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "ActivationConstraint": "graspl.constraints",
    "ChatDataModule": "graspl.data",
    "ChoiceItem": "graspl.data",
    "FactorConstraint": "graspl.constraints",
    "KLPenalty": "graspl.penalties",
    "Penalty": "graspl.penalties",
    "Start": "graspl.starts",
    "StreamConstraint": "graspl.constraints",
    "StreamEdit": "graspl.edits",
    "ThrowAwayFit": "graspl.methods",
    "Transform": "graspl.transforms",
    "Conversation": "graspl.data",
    "Directions": "graspl.directions",
    "GRASPCallback": "graspl.integrations",
    "GRASPLitModule": "graspl.methods",
    "GrasplError": "graspl.errors",
    "HeldAdapter": "graspl.integrations",
    "Identification": "graspl.directions",
    "LoRALitModule": "graspl.methods",
    "LoraOptions": "graspl.adapters",
    "NaturalDirections": "graspl.activations",
    "PairConstraint": "graspl.constraints",
    "ReadConstraint": "graspl.constraints",
    "ResidualConstraint": "graspl.constraints",
    "TaskDataModule": "graspl.data",
    "TopSingular": "graspl.directions",
    "WriteConstraint": "graspl.constraints",
    "identify_adapter": "graspl.directions",
    "read_adapter": "graspl.adapters",
}

__all__ = ["__version__", *_PLACES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    if name not in _PLACES:
        raise AttributeError(f"module 'graspl' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
