"""Figures as SVG text; matplotlib without its global state."""

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graspl.analysis.comparison import Comparison
from graspl.analysis.runs import Run
from graspl.analysis.tradeoff import curve

# Stands for the page's own text colour, light or dark.
INK = "#010203"


def _svg(
    draw: Callable[[Axes], None], *, width: float = 6.4, height: float = 4.0, font: int | None = None
) -> str:
    """Return a figure's SVG element; the same text for the same data."""
    style: Any = {"svg.hashsalt": "graspl", "svg.fonttype": "none", "font.size": 10, "legend.framealpha": 0.0}
    names = ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"]
    ink: Any = dict.fromkeys([*names, "xtick.labelcolor", "ytick.labelcolor"], INK)
    with rc_context({**style, **ink}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        draw(axes)
        if axes.get_lines():
            axes.legend(fontsize=font)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]
    return svg.replace(INK, "currentColor")


def tradeoff_figure(comparison: Comparison) -> str:
    """Return spill-over against adherence, a line for each fit, a mark for a base model, and bars where runs ended."""

    def draw(axes: Axes) -> None:
        for number, run in enumerate(comparison.runs):
            color = INK if run.is_base else f"C{number}"
            points, ended = curve(run.rows, comparison.figure), run.metrics[comparison.figure]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", color=color, label=run.name)  # type: ignore[arg-type]
            elif run.metrics["adherence"] is not None and ended is not None:
                axes.plot([run.metrics["adherence"]], [ended], "*", color=color, label=run.name)
            if comparison.figure == "spillover":
                _bars(axes, run, color)
        _tradeoff_axes(axes, comparison.figure)

    return _svg(draw)


def _bars(axes: Axes, run: Run, color: str) -> None:
    """Draw the 95 % intervals over questions of where a run ended."""
    task, unrelated = run.share("task"), run.share("unrelated")
    if task is None or unrelated is None or min(task.n, unrelated.n) < 2:
        return
    across, up = (
        [[max(0.0, each.value - each.low)], [max(0.0, each.high - each.value)]] for each in (task, unrelated)
    )
    axes.errorbar([task.value], [unrelated.value], xerr=across, yerr=up, color=color, capsize=3, lw=1)


def curves_figure(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Return spill-over against adherence, a colour for each method and a thin line for each fit."""

    def draw(axes: Axes) -> None:
        for number, (method, by_seed) in enumerate(curves.items()):
            style: Any = {
                "color": f"C{number % 10}",
                "ls": ("-", "--", ":")[number // 10 % 3],
                "lw": 0.9,
                "alpha": 0.7,
            }
            for index, points in enumerate(filter(None, by_seed.values())):
                axes.plot(*zip(*points, strict=True), label=None if index else method, **style)
        _tradeoff_axes(axes)

    return _svg(draw, width=7.5, height=5.5, font=7)


def _tradeoff_axes(axes: Axes, figure: str = "spillover") -> None:
    axes.set(xlabel="adherence to the task", xlim=(0, 1.01))
    if figure == "spillover":
        axes.set(ylabel="spill-over to other topics", ylim=(0, 1.01))
    else:
        axes.set(ylabel="divergence off the task, nats a token")
        axes.set_ylim(bottom=0)


def spectra_figure(runs: Sequence[Run]) -> str:
    """Return every site's singular values over its first, a colour for each run."""

    def draw(axes: Axes) -> None:
        for number, run in enumerate(runs):
            style: Any = {"color": f"C{number}", "alpha": 0.35, "lw": 0.8}
            spectra = [site["singular_values"] for site in run.evaluation.get("sites", {}).values()]
            for index, values in enumerate(each for each in spectra if each and each[0] > 0):
                scaled = [value / values[0] for value in values]
                axes.plot(range(1, len(values) + 1), scaled, label=None if index else run.name, **style)
        axes.set(xlabel="singular value", ylabel="over the first", ylim=(0, 1.05))

    return _svg(draw)
