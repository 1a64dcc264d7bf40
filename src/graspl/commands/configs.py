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
    """Where it is."""

    def render(self) -> list[str]:
        """Return the line that names it."""
        return [f"configs: {self.out}"]


def configs(*, out: Path = Path("configs")) -> Copied:
    """Copy the configurations that come with graspl into a folder, where you can change them.

    The documentation's commands expect them in `configs`.

    Args:
        out: folder to make.

    Raises:
        GrasplError: the folder exists already.
    """
    if out.exists():
        raise GrasplError(f"out: {out} exists already; name another folder, or remove it")
    with atomic_path(out) as scratch:
        shutil.copytree(shipped(), scratch)
    return Copied(out)


def shipped() -> Path:
    """Return the folder of configurations, in the installed package or in the clone."""
    inside = Path(str(files("graspl"))) / "configs"
    return inside if inside.is_dir() else Path(graspl.__file__).parents[2] / "configs"
