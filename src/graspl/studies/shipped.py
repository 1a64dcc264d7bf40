"""The configurations that come with graspl."""

from importlib.resources import files
from pathlib import Path

import graspl


def shipped_configs() -> Path:
    """Return their folder: inside an installed package, else beside the clone's `src`."""
    inside = Path(str(files("graspl"))) / "configs"
    return inside if inside.is_dir() else Path(graspl.__file__).parents[2] / "configs"
