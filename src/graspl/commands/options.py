"""A command's options, from its function's signature and docstring."""

import inspect
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from graspl.errors import GrasplError, foreign
from graspl.preflight import given_options


def add_options(parser: ArgumentParser, function: Callable[..., Any], *, without: Sequence[str] = ()) -> None:
    """Declare one option for each parameter of a command's function, which is typed and has a Google docstring.

    Parameters before the `*` are given by place. A list takes several values: `--names a b`. `--name` alone sets a bool.
    `**options` stand for those of the class that they are given to, but for those `without`. jsonargparse does the rest.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    docstring = parse(function.__doc__ or "")
    parser.description = f"{docstring.short_description} {docstring.long_description or ''}"
    about = {each.arg_name: each.description for each in docstring.params}
    hints = get_type_hints(function)
    added: set[str | int] = {*without}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        item = _item(hints[name])
        options: dict[str, Any] = {"type": item or hints[name], "help": about.get(name)}
        if item is not None:
            options["nargs"] = "+"
        if parameter.kind is not parameter.KEYWORD_ONLY:
            parser.add_argument(name, **options)
        elif hints[name] is bool:
            parser.add_argument(f"--{name}", nargs="?", const=True, default=parameter.default, **options)
        elif item is None:
            continue
        elif parameter.default is parameter.empty:
            parser.add_argument(f"--{name}", required=True, **options)
        else:
            default = parameter.default
            parser.add_argument(f"--{name}", default=None if default is None else [*default], **options)
        added.add(name)
    parser.add_function_arguments(function, as_group=False, skip=added, sub_configs=True)


def parse_arguments(
    parser: ArgumentParser, function: Callable[..., Any], arguments: Sequence[str]
) -> Namespace:
    """Parse a command's arguments; `--shared.trainer.max_steps 24` changes that key of a mapping alone.

    With two dots or more, jsonargparse would put the key in place of all that `shared.trainer` has.
    """
    mappings = {name for name, hint in get_type_hints(function).items() if hint is dict}
    keys = [each for each in given_options(arguments) if _first(each.name) in mappings and "." in each.name]
    taken = {place for each in keys for place in range(each.start, each.end)}
    parsed = parser.parse_args([each for place, each in enumerate(arguments) if place not in taken])
    if keys:
        from graspl.runs import parse_yaml
        from graspl.studies.methods import with_settings

        for each in keys:
            name = _first(each.name)
            with foreign(f"--{each.name}: {each.value}", "is not a value that can be read", "correct it"):
                value = parse_yaml(each.value)
            if value is None:
                raise GrasplError(f"--{each.name}: has no value; give one")
            key = each.name.removeprefix(f"{name}.")
            parsed[name] = with_settings(parsed[name], {key: value}, f"--{name}")
    return parsed


def _first(name: str) -> str:
    return name.partition(".")[0]


def _item(hint: Any) -> Any:
    """Return X for `list[X]`, `Sequence[X]` and either with None, else None."""
    for each in (hint, *(kind for kind in get_args(hint) if kind is not NoneType)):
        if get_origin(each) in (list, Sequence):
            return get_args(each)[0]
    return None
