"""What a JSON file of a run must hold before its values are used: anybody may have edited it."""

import sys
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, get_args

EACH = "*"  # In a mapping's form, stands for every key
MOST = sys.float_info.max
# A type or a union of types, where a float is any finite number; [form] of a list; {name: form} of a mapping, which may have
# more names
Form = Any


def misfit(value: Any, form: Form) -> str | None:
    """Return what keeps content of a JSON file from having a form, e.g. `layers.3 is missing or of the wrong kind`."""
    wrong = next(_misfits(value, form, ""), None)
    if wrong is None:
        return None
    return f"{wrong} is missing or of the wrong kind" if wrong else "its content is of the wrong kind"


def _misfits(value: Any, form: Form, name: str) -> Iterator[str]:
    """Yield the names of the values that are of another kind."""
    if isinstance(form, Mapping):
        if not isinstance(value, Mapping):
            yield name
            return
        wanted = dict.fromkeys(value, form[EACH]) if EACH in form else form
        for key, each in wanted.items():
            yield from _misfits(value.get(key), each, f"{name}.{key}" if name else str(key))
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield name
            return
        for place, each in enumerate(value):
            yield from _misfits(each, form[0], f"{name}.{place}" if name else str(place))
    elif not any(
        _is_of(value, kind) for kind in (get_args(form) if isinstance(form, UnionType) else (form,))
    ):
        yield name


def _is_of(value: Any, kind: type) -> bool:
    if kind is float:
        return is_number(value)
    return (
        value is None
        if kind is NoneType
        else isinstance(value, kind) and not (isinstance(value, bool) and kind is int)
    )


def is_number(value: Any) -> bool:
    """Whether a value is a number that can be reckoned with: finite, and no larger than a float may be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST <= value <= MOST
