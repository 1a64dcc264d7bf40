"""Whether an `evaluation.json` holds what a report reads; anybody may have edited it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError


def check_evaluation(content: Any, path: Path, mend: str) -> dict[str, Any]:
    """Return what an evaluation file holds.

    Args:
        content: as read.
        path: named in errors.
        mend: what to do.

    Raises:
        GrasplError: a field is missing or of another kind; says which.
    """
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
        raise GrasplError(f"{path}: holds no metrics; {mend}")
    wrong = _wrong(content)
    if wrong is not None:
        raise GrasplError(f"{path}: {wrong} is missing or of another kind; {mend}")
    return content


def _wrong(content: Mapping[str, Any]) -> str | None:
    """Return the first field that is not as it must be."""
    for name, value in content["metrics"].items():
        if value is not None and not _is_number(value):
            return f"metrics.{name}"
    for name in ("model", "adapter", "directions", "checkpoint"):
        if not isinstance(content.get(name), str | None):
            return name
    for group, fits in (("suites", _is_suite), ("sites", _is_site)):
        found = content.get(group, {})
        if not isinstance(found, dict):
            return group
        odd = next((name for name, each in found.items() if not fits(each)), None)
        if odd is not None:
            return f"{group}.{odd}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_suite(each: Any) -> bool:
    return isinstance(each, dict) and all(_is_number(value) for value in each.values())


def _is_site(each: Any) -> bool:
    if not isinstance(each, dict) or not isinstance(each.get("singular_values"), list):
        return False
    figures = [value for name, value in each.items() if name != "singular_values"]
    return all(_is_number(value) for value in (*figures, *each["singular_values"]))
