"""`graspl configs`: the configurations that graspl ships, as files of your own."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import graspl
from graspl.errors import GrasplError
from graspl.runs import atomic_path


class Copied(NamedTuple):
    """A folder of configurations."""

    out: Path

    def render(self) -> list[str]:
        """Return the line that names it."""
        return [f"configs: {self.out}"]


def configs(*, out: Path = Path("configs")) -> Copied:
    """Copy the configurations that come with graspl into a folder, where you can change them.

    Args:
        out: folder to make; the documentation's commands expect `configs`.
    """
    if out.exists():
        raise GrasplError(f"out: {out} exists already; name another folder, or remove it")
    inside = Path(str(files("graspl"))) / "configs"  # In an installed package; else beside the clone's `src`
    with atomic_path(out) as scratch:
        shutil.copytree(inside if inside.is_dir() else Path(graspl.__file__).parents[2] / "configs", scratch)
    return Copied(out)
