"""Pages from templates: every text is escaped, nothing is loaded, and only the page's own scripts may run."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from graspl import __version__
from graspl.reporting.interactive import packed_library
from graspl.reporting.tables import figure, interval


def heat_map(title: str, values: dict[str, float], *, highest: float | None = None) -> dict[str, Any]:
    """Return sites' figures by layer and module; `highest` gets the full colour, the largest value where None."""
    places = {name: _place(name) for name in values}
    layers = list(dict.fromkeys(layer for layer, _ in places.values()))
    columns = list(dict.fromkeys(module for _, module in places.values()))
    cells = {places[name]: value for name, value in values.items()}
    rows = [(layer, [cells.get((layer, column)) for column in columns]) for layer in layers]
    highest = highest or max(values.values(), default=0.0) or 1.0
    return {"title": title, "columns": columns, "rows": rows, "highest": highest}


def _place(site: str) -> tuple[str, str]:
    """Return layer and module of a site: its last number, and its last name."""
    parts = site.split(".")
    number = max((index for index, part in enumerate(parts) if part.isdigit()), default=None)
    return (site, "update") if number is None else (parts[number], parts[-1])


def render(template: str, fields: dict[str, Any], *, interactive: bool = False) -> str:
    """Return a page as HTML text, from a template in this room; every text in the fields is escaped.

    Args:
        template: its file name.
        fields: what the template shows.
        interactive: whether the page has plots that plotly.js draws.
    """
    environment = Environment(
        loader=PackageLoader("graspl.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": interval}
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    script = files("graspl.reporting").joinpath("page.js").read_text(encoding="utf-8")
    library, packed = packed_library() if interactive else ("", "")
    allowed = [_hash(each) for each in (script, library) if each]
    return environment.get_template(template).render(
        version=__version__, script=Markup(script), script_hashes=allowed, library=Markup(packed), **fields
    )


def _hash(script: str) -> str:
    """Return what a page's policy says to allow a script, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
