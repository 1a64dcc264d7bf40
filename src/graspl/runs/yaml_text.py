"""YAML that others wrote: parsed without types of Python, and no larger than it looks."""

from typing import Any

import yaml

MOST_VALUES = 3 * 10**6  # Of a text, each counted as often as it is referred to


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Raises:
        yaml.YAMLError: it is no YAML.
        ValueError: it refers to itself, or is larger than `MOST_VALUES` once its references are followed.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node stands for, with those that it refers to."""
    if id(node) not in known:
        known[id(node)] = 0  # Until it is counted
        parts = node.value if isinstance(node.value, list) else []
        inner = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_count(each, known) for each in inner)
    if not 0 < known[id(node)] <= MOST_VALUES:
        raise ValueError(f"its references make more than {MOST_VALUES} values of it, or it refers to itself")
    return known[id(node)]
