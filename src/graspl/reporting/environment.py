"""How pages are made of templates: every text escaped, one script that the page itself vouches for, nothing loaded."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from graspl import __version__
from graspl.reporting.tables import figure


class HeatMap(NamedTuple):
    """Figures of sites, a row a layer and a column a module."""

    title: str
    """Above the table."""
    columns: list[str]
    """Modules."""
    rows: list[tuple[str, list[float | None]]]
    """Layer, and its value a module; None where the adapter has no such site."""
    highest: float
    """What is coloured in full."""


def heat_map(title: str, values: dict[str, float], *, highest: float | None = None) -> HeatMap:
    """Return sites' figures by layer and module.

    Args:
        title: above the table.
        values: by site, e.g. `model.layers.0.self_attn.q_proj`.
        highest: what is coloured in full; the largest value where None.
    """
    places = {name: _place(name) for name in values}
    layers = list(dict.fromkeys(layer for layer, _ in places.values()))
    columns = list(dict.fromkeys(module for _, module in places.values()))
    cells = {places[name]: value for name, value in values.items()}
    rows = [(layer, [cells.get((layer, column)) for column in columns]) for layer in layers]
    return HeatMap(title, columns, rows, highest or max(values.values(), default=0.0) or 1.0)


def _place(site: str) -> tuple[str, str]:
    """Return layer and module of a site: what comes up to its last number, and its last name."""
    parts = site.split(".")
    number = max((index for index, part in enumerate(parts) if part.isdigit()), default=None)
    return (site, "update") if number is None else (parts[number], parts[-1])


def render(template: str, fields: dict[str, Any]) -> str:
    """Return a page as HTML text.

    Args:
        template: its file's name in this room.
        fields: what it shows; every text in it is escaped.
    """
    environment = Environment(
        loader=PackageLoader("graspl.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": interval}
    script = files("graspl.reporting").joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        version=__version__, script=Markup(script), script_hash=f"sha256-{digest}", **fields
    )


def interval(each: Sequence[float] | None) -> str:
    """Return a value with its interval as text, a dash where there is none.

    Args:
        each: value, lower and upper end, in this order.
    """
    if each is None:
        return "-"
    value, low, high = each[:3]
    return f"{figure(value)} ({figure(low)} to {figure(high)})"
