"""`graspl configs`: the configurations that graspl ships, as files of your own."""

import shutil
from importlib.resources import files
from pathlib import Path

from jsonargparse import ArgumentParser

import graspl
from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.runs import atomic_path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl configs`."""
    parser.add_function_arguments(configs)


def configs(out: Path = Path("configs")) -> Path:
    """Copy the configurations into a folder, where the documentation's commands find them and you can change them.

    Args:
        out: folder to make.

    Raises:
        GrasplError: it is there already.
    """
    if out.exists():
        raise GrasplError(f"out: {out} is there already; name another folder, or remove it")
    with atomic_path(out) as scratch:
        shutil.copytree(shipped(), scratch)
    console().print(f"configs: {out}", soft_wrap=True, highlight=False, markup=False)
    return out


def shipped() -> Path:
    """Return the folder of configurations: inside the installed package, or of the clone that it is run from."""
    inside = Path(str(files("graspl"))) / "configs"
    return inside if inside.is_dir() else Path(graspl.__file__).parents[2] / "configs"
