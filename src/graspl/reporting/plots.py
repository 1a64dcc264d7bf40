"""What plots show, apart from how they are drawn: one description for a picture and for an interactive plot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graspl.analysis.changes import SuiteChanges
from graspl.analysis.tradeoff import Rows, curve, figures_at
from graspl.reporting.series import Series

LEVELS_OF_A_MEAN = 25  # Levels of adherence at which a mean over seeds is read
MOST_BANDS = 8  # Series with a band; more would cover one another
MOST_POINTS = 400  # Of a line; a longer log is thinned out
TURNS = {"harmful": "#d1495b", "good": "#1f9d63", "other": "#7a7f87"}
LOGGED = {"loss": "train/loss", "adherence": "val/adherence", "spillover": "val/spillover", "kl": "val/kl"}
TITLES = {
    "loss": ("Training loss", "nats a token"),
    "adherence": ("Adherence to the task", "adherence"),
    "spillover": ("Spill-over to other topics", "spill-over"),
    "kl": ("Divergence off the task", "nats a token"),
}


@dataclass(frozen=True)
class Trace:
    """One line, band, or set of points or bars."""

    series: str  # Shown and hidden together
    color: str  # As in HTML
    x: Sequence[float]
    y: Sequence[float]
    form: Literal["line", "thin", "points", "band", "bars"] = "line"
    lower: Sequence[float] = ()  # Of a band; `y` is its upper edge
    texts: Sequence[str] = ()  # What a reader sees of each point beside its place
    colors: Sequence[str] = ()  # Of each bar
    x_error: tuple[float, float] | None = None  # Below and above a single point
    y_error: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plot:
    """One plot."""

    name: str  # Within the page
    title: str
    x: str  # Title of the axis
    y: str
    traces: Sequence[Trace] = field(default_factory=list)
    columns: Mapping[str, Sequence[Any]] = field(
        default_factory=dict
    )  # Of the download, where it is not the traces' points
    hidden: Sequence[str] = ()  # Series that are not shown at first


def tradeoff_plot(series: Sequence[Series], figure: str = "spillover") -> Plot:
    """Return spill-over (or another figure) against adherence, with where runs ended."""
    traces = []
    for each in series:
        logs = {seed: rows for seed, rows in each.logs.items() if curve(rows, figure)}
        traces += _seeds(
            each, {seed: tuple(zip(*curve(rows, figure), strict=True)) for seed, rows in logs.items()}
        )
        if len(logs) > 1 and not each.tasks:
            mean = _mean(each, *_at_levels(list(logs.values()), figure))
            traces += mean if len(series) <= MOST_BANDS else mean[1:]
        traces += _ends(each)
    y = TITLES[figure][0] + (", nats a token" if figure == "kl" else "")
    return Plot("trade-off", "Trade-off", TITLES["adherence"][0].lower(), y.lower(), traces)


def step_plots(series: Sequence[Series]) -> list[Plot]:
    """Return loss, adherence, spill-over and divergence over optimizer steps; those that were logged."""
    return [plot for name in LOGGED if (plot := _over_steps(name, series)).traces]


def spectra_plot(series: Sequence[Series]) -> Plot:
    """Return singular values over the first one: the median of the sites, and the band from the lowest to the highest."""
    traces = []
    for each in series:
        ranks = range(max(map(len, each.spectra), default=0))
        columns = [sorted(values[rank] for values in each.spectra if len(values) > rank) for rank in ranks]
        x = [rank + 1 for rank in ranks]
        if x:
            low, high = [column[0] for column in columns], [column[-1] for column in columns]
            median = [column[len(column) // 2] for column in columns]
            traces += [
                Trace(each.name, each.color, x, high, "band", low),
                Trace(each.name, each.color, x, median),
            ]
    return Plot("spectra", "Spectra", "singular value", "over the first", traces)


def changes_plot(found: Sequence[SuiteChanges], name: str = "changes") -> Plot:
    """Return each question's change as a bar, suite by suite, the largest increase first; the first suite is shown."""
    traces, columns = (
        [],
        {name: [] for name in ("suite", "question", "text", "before", "after", "change", "means")},
    )
    for suite in found:
        every = sorted(suite.changes, key=lambda each: -each.size)
        texts = [
            f"{each.text or 'question ' + each.item}\n{each.before:.3f} before, {each.after:.3f} after"
            for each in every
        ]
        traces.append(
            Trace(
                suite.suite, TURNS["other"], list(range(1, len(every) + 1)), [each.size for each in every], "bars",
                texts=texts, colors=[TURNS[each.turn] for each in every],
            )
        )  # fmt: skip
        for each in every:
            row = (suite.suite, each.item, each.text, each.before, each.after, each.size, each.turn)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    hidden = [suite.suite for suite in found[1:]]
    return Plot(name, "Changes by question", "question", "change", traces, columns, hidden)


def _over_steps(name: str, series: Sequence[Series]) -> Plot:
    column, (title, y) = LOGGED[name], TITLES[name]
    traces = []
    for each in series:
        lines = {}
        for seed, rows in each.logs.items():
            points = sorted((row["step"] + 1, row[column]) for row in rows if column in row and "step" in row)
            points = points[:: max(1, -(-len(points) // MOST_POINTS))]
            if points:
                lines[seed] = tuple(zip(*points, strict=True))
        traces += _seeds(each, lines)
        if len(lines) > 1 and not each.tasks:
            mean = _mean(each, *_at_steps(lines.values()))
            traces += mean if len(series) <= MOST_BANDS else mean[1:]
    return Plot(f"steps-{name}", title, "optimizer step", y, traces)


def _seeds(series: Series, lines: Mapping[str, Sequence[Sequence[float]]]) -> Iterator[Trace]:
    """Yield each seed's line with its points; several are thin."""
    form = "thin" if len(lines) > 1 else "line"
    for seed, (x, y) in lines.items():
        name = (
            series.name
            if seed == series.name
            else f"{series.name}, {seed if series.tasks else f'seed {seed}'}"
        )
        texts = [name if len(lines) > 1 else series.name] * len(x)
        yield Trace(series.name, series.color, x, y, form, texts=texts)


def _mean(series: Series, x: list[float], every: list[list[float]]) -> list[Trace]:
    """Return the mean over seeds and the band from the lowest to the highest; nothing without two points."""
    if len(x) < 2:
        return []
    mean = [sum(values) / len(values) for values in every]
    texts = [f"{series.name}, mean of {len(values)} seeds" for values in every]
    return [
        Trace(
            series.name,
            series.color,
            x,
            [max(values) for values in every],
            "band",
            [min(values) for values in every],
        ),
        Trace(series.name, series.color, x, mean, texts=texts),
    ]


def _at_levels(logs: Sequence[Rows], figure: str) -> tuple[list[float], list[list[float]]]:
    """Return levels of adherence that every fit reached after its first validation, and the fits' figures there."""
    reached = [[x for x, _ in curve(rows, figure)] for rows in logs]
    low, high = max(each[0] for each in reached), min(max(each) for each in reached)
    levels = [low + (high - low) * index / (LEVELS_OF_A_MEAN - 1) for index in range(LEVELS_OF_A_MEAN)]
    read = [[figures_at(rows, level, (figure,))[figure] for rows in logs] for level in levels if high > low]
    known = [(level, values) for level, values in zip(levels, read, strict=False) if None not in values]
    return [level for level, _ in known], [
        [value for value in values if value is not None] for _, values in known
    ]


def _at_steps(lines: Any) -> tuple[list[float], list[list[float]]]:
    """Return the steps that every fit logged, and the fits' figures there."""
    by_step = [dict(zip(x, y, strict=True)) for x, y in lines]
    common = [step for step in by_step[0] if all(step in each for each in by_step)]
    return common, [[each[step] for each in by_step] for step in common]


def _ends(series: Series) -> Iterator[Trace]:
    for end in series.ends:
        x, y, bars = end.adherence, end.value, (None, None)
        text = f"{end.name}, where it ended"
        if end.across is not None and end.up is not None:
            x, y = end.across.value, end.up.value
            bars = tuple(
                (max(0.0, each.value - each.low), max(0.0, each.high - each.value))
                for each in (end.across, end.up)
            )
        yield Trace(
            series.name, series.color, [x], [y], "points", texts=[text], x_error=bars[0], y_error=bars[1]
        )
