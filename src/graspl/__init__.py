"""Fine-tune language models for the skill without the side effect.

Importing this package imports nothing heavy: the public names are loaded when they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "methods": ("LoRALitModule", "GRASPLitModule", "ThrowAwayFit"),
    "constraints": (
        "FactorConstraint",
        "StreamConstraint",
        "WriteConstraint",
        "ReadConstraint",
        "PairConstraint",
        "ResidualConstraint",
        "ActivationConstraint",
    ),
    "penalties": (
        "Penalty",
        "KLPenalty",
        "FeaturePenalty",
        "ConsistencyPenalty",
        "L2Penalty",
        "OrthogonalityPenalty",
    ),
    "edits": ("StreamEdit", "Ablate", "Cut", "Push"),
    "starts": ("Start", "PlainStart", "DirectionsStart"),
    "transforms": ("Transform", "Scale", "Balance", "Truncate", "SafeLoRA", "Subtract"),
    "directions": ("Directions", "Identification", "TopSingular", "identify_adapter"),
    "activations": ("NaturalDirections",),
    "adapters": ("LoraOptions", "read_adapter"),
    "data": ("ChatDataModule", "TaskDataModule", "Conversation", "ChoiceItem"),
    "integrations": ("GRASPCallback", "HeldAdapter"),
    "errors": ("GrasplError",),
}
_PLACES = {name: f"graspl.{room}" for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *_PLACES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    if name not in _PLACES:
        raise AttributeError(f"module 'graspl' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
