"""Plots as SVG text, for readers without scripts and for pages of others; matplotlib without its global state."""

from collections.abc import Callable
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graspl.reporting.plots import Plot, Trace

# Stands for the page's own text colour, light or dark.
INK = "#010203"
MOST_BARS = 200
MOST_NAMED = 12  # Series in a legend


def svg_of(plot: Plot, *, width: float = 6.4, height: float = 4.0) -> str:
    """Return a plot's SVG element; the same text for the same data."""

    def draw(axes: Axes) -> None:
        named: set[str] = set()
        for trace in (each for each in plot.traces if each.series not in plot.hidden):
            _draw(axes, trace, trace.series not in named)
            named.add(trace.series)
        axes.set(xlabel=plot.x, ylabel=plot.y)
        axes.grid(alpha=0.2)
        bars = any(trace.form == "bars" for trace in plot.traces)
        if named and not bars:
            axes.legend(fontsize=None if len(named) <= MOST_NAMED else 7)

    return _svg(draw, plot.title, width, height)


def _draw(axes: Axes, trace: Trace, first: bool) -> None:
    label = trace.series.replace("$", r"\$") if first else None
    if trace.form == "band":
        axes.fill_between(trace.x, trace.lower, trace.y, color=trace.color, alpha=0.18, lw=0, label=label)
    elif trace.form == "bars":
        # One shape a colour: a bar each would make a picture of megabytes
        stride = -(-len(trace.x) // MOST_BARS)
        for color in dict.fromkeys(trace.colors):
            own = [value if each == color else 0.0 for value, each in zip(trace.y, trace.colors, strict=True)]
            axes.fill_between(trace.x[::stride], own[::stride], step="mid", color=color, lw=0)
    elif trace.form == "points":
        errors = {"xerr": trace.x_error, "yerr": trace.y_error}
        bars: Any = {name: [[each[0]], [each[1]]] for name, each in errors.items() if each is not None}
        axes.errorbar(
            trace.x, trace.y, fmt="D", ms=6, capsize=3, lw=1, color=trace.color, label=label, **bars
        )
    else:
        style: Any = (
            {"lw": 0.8, "alpha": 0.45}
            if trace.form == "thin"
            else {"lw": 2, "marker": "." if trace.texts else ""}
        )
        axes.plot(trace.x, trace.y, color=trace.color, label=label, **style)


def _svg(draw: Callable[[Axes], None], title: str, width: float, height: float) -> str:
    style: Any = {
        "svg.hashsalt": f"graspl {title}",
        "svg.fonttype": "none",
        "font.size": 10,
        "legend.framealpha": 0.0,
    }
    names = ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"]
    ink: Any = dict.fromkeys([*names, "xtick.labelcolor", "ytick.labelcolor"], INK)
    with rc_context({**style, **ink}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        draw(axes)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
    return svg.replace(INK, "currentColor")
