"""Public names with their signatures, and commands with their options, are those of two committed lists.

A change of either list is a decision, with a line in CHANGELOG.md. To accept one, run `python tests/test_public_api.py`.
"""

import contextlib
import difflib
import inspect
import io
import json
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import yaml

import graspl

HERE = Path(__file__).parent
LISTS = {"names": HERE / "public_api.txt", "commands": HERE / "cli" / "commands.txt"}
LIGHTNINGS = ("trainer", "checkpoint")
"""Options that come from Lightning change with its version."""


def public_names():
    """Yield a line for each name of `graspl` and of each room, and for each public method."""
    yield from (f"graspl.{name}" for name in sorted(graspl.__all__))
    for room in sorted(each.name for each in pkgutil.iter_modules(graspl.__path__) if each.ispkg):
        module = import_module(f"graspl.{room}")
        for name in sorted(getattr(module, "__all__", ())):
            value = getattr(module, name)
            yield f"graspl.{room}.{name}{signature(value)}"
            if inspect.isclass(value):
                yield from (f"graspl.{room}.{name}.{line}" for line in sorted(methods(value)))


def methods(value):
    """Yield the public methods and properties that a class itself defines."""
    for name, member in vars(value).items():
        if name.startswith("_"):
            continue
        member = getattr(member, "__func__", member)
        if inspect.isfunction(member):
            yield name + signature(member)
        elif isinstance(member, property) or type(member).__name__ == "cached_property":
            yield f"{name} (property)"


def signature(value):
    """Return parameters with plain defaults; types stand in the code."""
    if not callable(value):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return "(...)"
    return f"({', '.join(map(parameter, parameters))})"


def parameter(each):
    if each.default is each.empty:
        return (
            f"{'*' * (each.kind is each.VAR_POSITIONAL)}{'**' * (each.kind is each.VAR_KEYWORD)}{each.name}"
        )
    text = repr(each.default)
    return f"{each.name}={'...' if ' object at ' in text or '<' in text else text}"


def commands():
    """Yield each command, and below it its options with their defaults."""
    from graspl.cli import TOOLS, TRAINING, main, tool_parser

    for command in TRAINING:
        yield command
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([command, "--print_config"])
        options = flat(yaml.safe_load(printed.getvalue()))
        yield from (
            f"  {name} = {default}" for name, default in options if name.partition(".")[0] not in LIGHTNINGS
        )
    for command in TOOLS:
        yield command
        parser, _ = tool_parser(command)
        options = sorted(vars(parser.get_defaults().as_flat()).items())
        yield from (f"  {name} = {default}" for name, default in options if name != "config")


def flat(options, prefix=""):
    for name, value in options.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


if __name__ == "__main__":
    for kind, lines in (("names", public_names()), ("commands", commands())):
        LISTS[kind].write_text("\n".join(lines) + "\n")


def test_what_users_rely_on_changes_on_purpose():
    # In a process of its own: pytest's shape checks wrap functions
    program = (
        "import json, test_public_api as api; print(json.dumps([[*api.public_names()], [*api.commands()]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, check=False,
        env=os.environ | {"JSONARGPARSE_DEPRECATION_WARNINGS": "off"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path, lines in zip(LISTS.values(), json.loads(done.stdout), strict=True):
        known = path.read_text().splitlines()
        told = "\n".join(difflib.unified_diff(known, "\n".join(lines).splitlines(), lineterm="", n=0))
        assert not told, (
            f"{path.name}:\n{told}\nIf you meant it: python tests/test_public_api.py, and a line in CHANGELOG.md"
        )
