"""Plots for plotly.js, which draws them in the reader's browser; its script is packed into the page."""

import base64
import gzip
import html
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from graspl.reporting.plots import Plot, Trace

TITLES = {"family": "system-ui, sans-serif", "size": 13, "color": "#6e7781"}


@lru_cache(maxsize=1)
def packed_library() -> tuple[str, str]:
    """Return the script of plotly.js, and the same compressed and in base64: 2 MB of a page instead of 5."""
    from plotly.offline import get_plotlyjs  # Not for the tables, which every command imports with this room

    script = get_plotlyjs()
    packed = gzip.compress(script.encode(), 6, mtime=0)
    return script, base64.b64encode(packed).decode()


def figure_of(plot: Plot) -> dict[str, Any]:
    """Return what the page's script needs of a plot: `data` and `layout` of plotly.js, and `series` and `rows` of our own."""
    series: dict[str, str] = {}
    for trace in plot.traces:
        series.setdefault(trace.series, trace.color)
    axis = {"automargin": True, "zeroline": False, "gridcolor": "#8883", "linecolor": "#8888"}
    layout = {
        "xaxis": {**axis, "title": {"text": _plain(plot.x)}},
        "yaxis": {**axis, "title": {"text": _plain(plot.y)}},
        "margin": {"l": 50, "r": 12, "t": 12, "b": 45},
        "font": TITLES,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "bargap": 0,
    }
    shown = [{"name": name, "color": color, "hidden": name in plot.hidden} for name, color in series.items()]
    traces = [each for trace in plot.traces for each in _traces(trace, trace.series in plot.hidden)]
    return {
        "name": plot.name,
        "title": plot.title,
        "data": traces,
        "layout": layout,
        "series": shown,
        "rows": _rows(plot),
    }


def _traces(trace: Trace, hidden: bool) -> list[dict[str, Any]]:
    """Return one trace of plotly.js, or two that bound a band."""
    shared: dict[str, Any] = {
        "x": _finite(trace.x), "y": _finite(trace.y), "meta": trace.series,
        "name": _plain(trace.series), "visible": not hidden,
    }  # fmt: skip
    if trace.form == "band":
        edge = {
            "type": "scatter",
            "mode": "lines",
            "line": {"width": 0, "color": trace.color},
            "hoverinfo": "skip",
        }
        filled = {"fill": "tonexty", "fillcolor": trace.color + "30"}
        return [shared | edge | {"y": _finite(trace.lower)}, shared | edge | filled]
    told = {
        "text": [_plain(each).replace("\n", "<br>") for each in trace.texts],
        "hovertemplate": _hover(trace),
    }
    if trace.form == "bars":
        return [
            shared | told | {"type": "bar", "textposition": "none", "marker": {"color": list(trace.colors)}}
        ]
    return [shared | told | _scatter(trace)]


def _scatter(trace: Trace) -> dict[str, Any]:
    if trace.form == "points":
        errors = {"error_x": trace.x_error, "error_y": trace.y_error}
        bars = {
            name: {
                "type": "data",
                "symmetric": False,
                "arrayminus": [each[0]],
                "array": [each[1]],
                "thickness": 1,
            }
            for name, each in errors.items()
            if each is not None
        }
        return {
            "type": "scatter",
            "mode": "markers",
            "marker": {"color": trace.color, "size": 10, "symbol": "diamond"},
            **bars,
        }
    thin = trace.form == "thin"
    line = {"color": trace.color, "width": 1 if thin else 2.5}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "line": line,
        "opacity": 0.5 if thin else 1,
        "marker": {"size": 4},
    }


def _hover(trace: Trace) -> str:
    place = "%{y:.3f}" if trace.form == "bars" else "%{x:.4~g}, %{y:.3f}"
    return ("%{text}<br>" if trace.texts else "") + place + "<extra></extra>"


def _rows(plot: Plot) -> dict[str, list[Any]]:
    """Return what a reader downloads, by column."""
    if plot.columns:
        return {name: _finite(values) for name, values in plot.columns.items()}
    points = [
        (trace.series, text, x, y)
        for trace in plot.traces
        if trace.form in ("line", "thin", "points")
        for text, x, y in zip(_named(trace), trace.x, trace.y, strict=True)
    ]
    columns = list(zip(*points, strict=True)) or [()] * 4
    return dict(zip(("series", "point", plot.x, plot.y), map(_finite, columns), strict=True))


def _named(trace: Trace) -> Sequence[str]:
    return trace.texts or [trace.series] * len(trace.x)


def _finite(values: Sequence[Any]) -> list[Any]:
    """Return values with None for what JSON has no number for."""
    return [None if isinstance(each, float) and not math.isfinite(each) else each for each in values]


def _plain(text: str) -> str:
    """Return a text that plotly.js shows as it is: it would take tags for markup."""
    return html.escape(text, quote=False)
