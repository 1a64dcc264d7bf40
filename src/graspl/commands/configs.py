"""`graspl configs`: the configurations that graspl ships, as files of your own."""

import shutil
from pathlib import Path
from typing import NamedTuple

from graspl.errors import GrasplError
from graspl.runs import atomic_path
from graspl.studies.shipped import shipped_configs


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
    with atomic_path(out) as scratch:
        shutil.copytree(shipped_configs(), scratch)
    return Copied(out)
