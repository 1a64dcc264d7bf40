"""Figures as SVG text; matplotlib without its global state."""

from collections.abc import Callable, Mapping, Sequence
from io import StringIO

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graspl.reporting.comparison import Run


def _svg(draw: Callable[[Axes], None], *, width: float = 6.4, height: float = 4.0) -> str:
    """Return a figure's SVG element; the same text for the same data."""
    with rc_context({"svg.hashsalt": "graspl", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2]


def tradeoff_figure(runs: Sequence[Run]) -> str:
    """Return spill-over against adherence, one line a fit and one mark for a base model."""

    def draw(axes: Axes) -> None:
        for number, run in enumerate(runs):
            if run.points:
                axes.plot(
                    [point.adherence for point in run.points],
                    [point.spillover for point in run.points],
                    marker=".",
                    color=f"C{number}",
                    label=run.name,
                )
                continue
            place = run.metrics["adherence"], run.metrics["spillover"]
            if place[0] is not None and place[1] is not None:
                axes.plot([place[0]], [place[1]], "k*", label=run.name)
        _tradeoff_axes(axes)
        if axes.get_lines():
            axes.legend()

    return _svg(draw)


def curves_figure(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> str:
    """Return spill-over against adherence, one colour a method and one thin line a fit.

    Args:
        curves: (adherence, spill-over) of each validation, by method and fit.
    """

    def draw(axes: Axes) -> None:
        for number, (method, by_seed) in enumerate(curves.items()):
            label: str | None = method
            for points in by_seed.values():
                if points:
                    style = {"color": f"C{number % 10}", "ls": ("-", "--", ":")[number // 10 % 3]}
                    axes.plot(*zip(*points, strict=True), lw=0.9, alpha=0.7, label=label, **style)  # type: ignore[arg-type]
                    label = None
        _tradeoff_axes(axes)
        if axes.get_lines():
            axes.legend(fontsize=7)

    return _svg(draw, width=7.5, height=5.5)


def _tradeoff_axes(axes: Axes) -> None:
    axes.set(
        xlabel="adherence to the task",
        ylabel="spill-over to other topics",
        xlim=(0, 1.01),
        ylim=(0, 1.01),
    )


def spectra_figure(runs: Sequence[Run]) -> str:
    """Return every site's singular values over its first, one colour a run."""

    def draw(axes: Axes) -> None:
        for number, run in enumerate(runs):
            label: str | None = run.name
            for site in run.evaluation.get("sites", {}).values():
                values = site["singular_values"]
                if values and values[0] > 0:
                    scaled = [value / values[0] for value in values]
                    axes.plot(
                        range(1, len(values) + 1), scaled, color=f"C{number}", alpha=0.35, lw=0.8, label=label
                    )
                    label = None
        axes.set(xlabel="singular value", ylabel="over the first", ylim=(0, 1.05))
        if axes.get_lines():
            axes.legend()

    return _svg(draw)


def reliance_figure(runs: Sequence[Run]) -> str:
    """Return rho of every site, one row a site and one mark a run."""
    names = list(dict.fromkeys(name for run in runs for name in run.evaluation.get("sites", {})))

    def draw(axes: Axes) -> None:
        for number, run in enumerate(runs):
            sites = run.evaluation.get("sites", {})
            known = [
                (sites[name]["rho"], row) for row, name in enumerate(names) if "rho" in sites.get(name, {})
            ]
            if known:
                axes.plot(*zip(*known, strict=True), "o", ms=4, color=f"C{number}", label=run.name)
        axes.set(xlabel="reliance rho", xlim=(-0.03, 1.03), yticks=range(len(names)))
        axes.set_yticklabels(names, fontsize=7)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        if axes.get_lines():
            axes.legend()

    return _svg(draw, width=7.5, height=1.2 + 0.16 * max(len(names), 8))
