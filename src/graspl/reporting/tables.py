"""Tables for the terminal, and how figures look in every table."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from rich.table import Column, Table

from graspl.analysis.comparison import Comparison
from graspl.analysis.verdicts import at
from graspl.reporting.markdown import cell, columns_of, title_of


class Shown(NamedTuple):
    """What a command found, and what the front door prints of it."""

    content: Any  # Figures, for a caller from Python
    parts: Sequence[Any]  # Tables, lines, and all else that rich prints
    exit_code: int = 0

    def render(self) -> Sequence[Any]:
        """Return the tables and lines."""
        return self.parts


WIDTH = 80  # Characters of a study's table in the terminal; all columns are in `comparison.md`
FIRST = (
    "reached",
    "removed",
    "step_ratio",
    "coherence_change",
)  # Columns that come first there, then what is removed of others
FOR_FILES = ("spillover", "steps", "needs")  # Columns that a terminal never shows


def figure(value: float | None) -> str:
    """Return a figure as text, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def interval(each: Sequence[float]) -> str:
    """Return a value with its interval as text: value, lower and upper end come first in `each`."""
    return "{} ({} to {})".format(*map(figure, each[:3]))


def matched_columns(comparison: Comparison) -> list[str]:
    """Return the heading of each level of adherence, e.g. `spill-over at 0.90`."""
    name = "kl" if comparison.figure == "kl" else "spill-over"
    return [f"{name} at {at(comparison, level).removeprefix('adherence ')}" for level in comparison.matched]


def runs_table(comparison: Comparison) -> Table:
    """Return one row for each run: its figures, and those at each level of adherence; 80 columns hold all of them."""
    names = [name.replace("_", " ") for name in (*comparison.figures, *matched_columns(comparison))]
    table = Table(Column("run", no_wrap=True), *names, box=None, padding=(0, 1, 0, 0))
    for run in comparison.runs:
        matched = [figure(by_run.get(run.name)) for by_run in comparison.matched.values()]
        table.add_row(run.name, *(figure(run.metrics[name]) for name in comparison.figures), *matched)
    return table


def judged_table(comparison: Comparison) -> Table:
    """Return one row for each run and judged suite: how often the judge's first outcome came."""
    table = Table("run", "suite", "outcome", "judged rate (95 %)", "n")
    for rate in comparison.judged:
        table.add_row(rate.run, rate.suite, rate.of, interval(rate.share), str(rate.share.n))
    return table


def study_tables(comparison: Mapping[str, Any]) -> Iterator[Table]:
    """Yield a table for each level of adherence, one row for each method: mean and interval of the figures that fit."""
    over = "tasks" if "tasks" in comparison else "seeds"
    widths = _fitting(comparison)
    headings = ["\n".join(wrap(title_of(name), width)) for name, width in widths.items()]
    for level, methods in comparison["levels"].items():
        title = f"at adherence {level}: mean +- half of the 95 % interval over {over}"
        table = Table(Column("method", no_wrap=True), *headings, title=title)
        for method in methods:
            table.add_row(method, *(cell(comparison, level, method, name) for name in widths))
        yield table


def _fitting(comparison: Mapping[str, Any]) -> dict[str, int]:
    """Return the widths of the columns for which a terminal has room, by name, the most asked for first."""
    found = [name for name in columns_of(comparison) if name not in FOR_FILES]
    ranked = sorted(
        found, key=lambda name: (*(name != each for each in FIRST), not name.endswith("_removed"))
    )
    cells = [(level, method) for level, methods in comparison["levels"].items() for method in methods]
    room = WIDTH - 4 - max(len(method) for _, method in cells)
    widths = {}
    for name in ranked:
        texts = [*title_of(name).split(" "), *(cell(comparison, *place, name) for place in cells)]
        widths[name] = max(map(len, texts))
        room -= widths[name] + 3
        if room < 0:
            del widths[name]
            break
    return widths


def contrast_table(suites: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one row for each suite of a `graspl.analysis.contrast`."""
    table = Table(
        "suite", "runs", "controls", "difference (95 % over questions)", "p", "questions", "95 % over seeds"
    )
    for suite, each in suites.items():
        seeds = each["over_seeds"]
        table.add_row(
            suite,
            f"{each['runs']:.4f}",
            f"{each['controls']:.4f}",
            f"{each['value']:+.4f} ({each['low']:+.4f} to {each['high']:+.4f})",
            f"{each['p']:.4f}",
            str(each["n"]),
            f"{seeds['low']:+.4f} to {seeds['high']:+.4f}" if seeds else "-",
        )
    return table


def rates_table(suites: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one row for each suite, and each group in it, of `judged.json`."""
    table = Table(
        "suite", "group", "answers", "outcome", "rate", "by question", "of those with a verdict", "others"
    )
    for suite, every in suites.items():
        for group, each in [("all", every), *every["groups"].items()]:
            settled, over = each["of_settled"], each["by_question"]
            counts = {name: n for name, n in each["counts"].items() if n and name != each["of"]}
            table.add_row(
                suite,
                group,
                str(each["answers"]),
                each["of"],
                "not measured"
                if each["rate"] is None
                else f"{each['rate']:.2%} ({each['wilson'][0]:.2%} to {each['wilson'][1]:.2%})",
                f"{over[0]:.2%} to {over[1]:.2%}" if over else "-",
                f"{settled['rate']:.2%} of {settled['n']}" if settled else "-",
                ", ".join(f"{name} {n}" for name, n in counts.items()),
            )
    return table
