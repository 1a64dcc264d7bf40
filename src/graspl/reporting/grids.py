"""Tables as plain text, for a page and for Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graspl.analysis.changes import SuiteChanges
from graspl.analysis.comparison import Comparison
from graspl.analysis.intervals import summarise
from graspl.reporting.markdown import cell, columns_of, title_of
from graspl.reporting.tables import figure, interval, matched_columns

NUMBER = re.compile(r"[-+]?\d[\d.,e+-]*( %|%)?( \(.*\)| \+- .*)?|-")


MEANINGS = {"harmful": "worse", "good": "better", "other": "-"}


class Grid(NamedTuple):
    """One table; the first cell of a row names it."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True  # Whether cells that are numbers are aligned

    def is_number(self, cell: str) -> bool:
        """Whether a cell is a number to align, perhaps with its interval."""
        return self.numbers and NUMBER.fullmatch(cell) is not None


def runs_grid(comparison: Comparison) -> Grid:
    """Return one row for each run: its figures, and those at each level of adherence."""
    rows = [
        (
            run.name,
            *(figure(run.metrics[name]) for name in comparison.figures),
            *(figure(found.get(run.name)) for found in comparison.matched.values()),
        )
        for run in comparison.runs
    ]
    return Grid(
        "Runs, where they ended and at equal adherence",
        ["run", *comparison.figures, *matched_columns(comparison)],
        rows,
    )


def methods_grid(comparison: Comparison) -> Grid | None:
    """Return one row for each method: means over its seeds, each with half of its interval; None without several seeds."""
    if all(len(runs) < 2 for runs in comparison.methods.values()):
        return None
    rows = []
    for method, runs in comparison.methods.items():
        ended = [[run.metrics[name] for run in runs.values()] for name in comparison.figures]
        read = [[found.get(run.name) for run in runs.values()] for found in comparison.matched.values()]
        rows.append((method, str(len(runs)), *(_mean(values) for values in [*ended, *read])))
    caption = "Methods, where they ended and at equal adherence: mean +- half of the 95 % interval over seeds"
    return Grid(caption, ["method", "seeds", *comparison.figures, *matched_columns(comparison)], rows)


def _mean(values: Sequence[float | None]) -> str:
    found = summarise(values)
    if found.low is None or found.high is None:
        return figure(found.mean)
    return f"{figure(found.mean)} +- {(found.high - found.low) / 2:.3f}"


def ends_grid(comparison: Comparison) -> Grid:
    """Return the harmful answers' share of the choices where runs ended."""
    rows = [(end.run, end.suite, interval(end.share), str(end.share.n)) for end in comparison.ends]
    caption = "Where runs ended: harmful answers' share of the choices, 95 % intervals over questions"
    return Grid(caption, ["run", "suite", "share", "questions"], rows)


def judged_grid(comparison: Comparison) -> Grid:
    """Return how often a judge found the outcome, by run and suite."""
    rows = [
        (each.run, each.suite, each.of, interval(each.share), str(each.share.n)) for each in comparison.judged
    ]
    caption = "How often a judge found the outcome, 95 % intervals over questions (over answers where there is one question)"
    return Grid(caption, ["run", "suite", "outcome", "rate", "n"], rows)


def changes_grid(found: SuiteChanges, most: int) -> Grid:
    """Return the questions of a suite that changed most."""
    rows = [
        (
            each.text or each.item,
            figure(each.before),
            figure(each.after),
            f"{each.size:+.3f}",
            MEANINGS[each.turn],
        )
        for each in found.changes[:most]
    ]
    return Grid(f"{found.suite}: {found.unit}", ["question", "before", "after", "change", "means"], rows)


def study_grids(comparison: Mapping[str, Any]) -> list[Grid]:
    """Return a table for each level of adherence of a study, one row for each method."""
    columns, over = columns_of(comparison), "tasks" if "tasks" in comparison else "seeds"
    return [
        Grid(
            f"At adherence {level}: mean +- half of the 95 % interval over {over}",
            ["method", *map(title_of, columns)],
            [(method, *(cell(comparison, level, method, name) for name in columns)) for method in methods],
        )
        for level, methods in comparison["levels"].items()
    ]
