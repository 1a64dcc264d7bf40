"""What jsonargparse says of a wrong option, with what to do about it."""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from graspl.preflight import CLASSES, PACKAGE, joined, listed, meant, meant_option, modules_in, names_in

UNKNOWN = re.compile(r"(?:[Uu]nrecognized arguments: --|[Oo]ption ')([\w.+]+)")
CLASS = re.compile(r"given class_path '([\w.]+)'")
NO_NAME = re.compile(r"module 'graspl([\w.]*)' has no attribute '(\w+)'")
NO_CLASS = re.compile(r"dot import path string: (\w+)$")
REQUIRED = re.compile(r"arguments are required: ([\w., ]+)$")
KEY = re.compile(r'^Parser key "([\w.]+)"')
BASES = ("lightning.LightningModule", "lightning.LightningDataModule")  # Where no class is named


def with_fix(message: str, command: str, options: Sequence[str] = ()) -> str:
    """Return jsonargparse's line with the name that was meant, if there is one, and where the options are listed.

    Args:
        message: in one line, as `graspl.errors.shorten` returns it.
        command: that was given.
        options: the command's own, without dashes.
    """
    key, classes = KEY.match(message), CLASS.findall(message)
    group = key[1].partition(".")[0] if key else ""
    if classes and classes[-1] in BASES and group in CLASSES:
        return f"{group}: no class is named before its options; give {CLASSES[group]}, or a --config that names one"
    return joined(message, _hint(message, classes, group, options), listed(command))


def _hint(message: str, classes: Sequence[str], group: str, options: Sequence[str]) -> str:
    """Return what was meant, or what to give; "" where nothing is known."""
    unknown, no_class, required = UNKNOWN.search(message), NO_CLASS.search(message), REQUIRED.search(message)
    if unknown is not None and group in CLASSES:
        # Of a class within a class only the last part of the option is known
        known = [f"{group}.{each}" if len(classes) == 1 else each for each in options_of(classes[-1])]
        return meant_option(f"{group}.{unknown[1]}" if len(classes) == 1 else unknown[1], known)
    if unknown is not None:
        return meant_option(unknown[1], options_of(classes[-1]) if classes else options)
    no_name = NO_NAME.search(message)
    if no_name is not None:
        room = PACKAGE.joinpath(*no_name[1].split(".")[1:])
        return meant(no_name[2], [*names_in(room), *(modules_in(room) if room.is_dir() else ())])
    if no_class is not None:
        return meant(no_class[1], [name for room in modules_in(PACKAGE) for name in names_in(PACKAGE / room)])
    if required is not None and group in CLASSES:
        return "give " + ", ".join(f"--{group}.{each}" for each in required[1].split(", "))
    return ""


def options_of(class_path: str) -> list[str]:
    """Return the options of a class, those of its parts too."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    module, _, name = class_path.rpartition(".")
    found: Any = getattr(import_module(module), name)
    parser.add_class_arguments(found, as_group=False)
    return names_of(parser)


def names_of(parser: Any) -> list[str]:
    """Return the names of a parser's options, without dashes."""
    return list(vars(parser.get_defaults().as_flat()))
