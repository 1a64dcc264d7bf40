"""A report as Markdown, in the order of the page: for model cards, pull requests and issues."""

from collections.abc import Iterator, Sequence

from graspl.analysis.removal import removal_sentence
from graspl.reporting.grids import Grid, changes_grid
from graspl.reporting.sheet import Changes, Sheet

CHANGES_SHOWN = 5  # Questions of a suite
LONGEST_CELL = 120  # Characters


def as_report(sheet: Sheet) -> str:
    """Return the report; texts that models and others wrote cannot become markup."""
    return "\n".join(_lines(sheet)).rstrip() + "\n"


def _lines(sheet: Sheet) -> Iterator[str]:
    yield from [f"**{_text(removal_sentence(sheet.removal))}**", ""]
    yield from (f"- {_text(f'{each.verdict}: {each.reason}')}." for each in sheet.beside.trust)
    yield from (f"- {_text(line)}" for line in [*sheet.points, *sheet.notes])
    yield ""
    shown = {
        "figures": sheet.figures[:1],
        "judged": [sheet.judged] if sheet.judged else [],
        "facts": sheet.facts[:1],
    }
    for name, grids in shown.items():
        yield from (line for grid in grids for line in _table(grid))
        if name == "figures":
            yield from (line for grid in sheet.figures[1:] for line in _folded(_text(grid.caption), grid))
            yield from (line for changes in sheet.changes[:1] for line in _changes(changes))
    yield from (f"- {_text(line)}" for line in sheet.judged_lines)
    commands = [grid for grid in sheet.facts[1:] if "command" in grid.headings]
    yield from (line for grid in commands for line in _folded("How to reproduce", grid))


def _changes(found: Changes) -> Iterator[str]:
    yield from [f"### Changes by question: {_text(found.title)}", ""]
    for suite in found.suites:
        counts = f"{suite.count('good')} for the better, {suite.count('harmful')} for the worse"
        yield from [f"{_text(suite.suite)}: {counts}, of {len(suite.changes)} questions; the largest:", ""]
        yield from _table(changes_grid(suite, CHANGES_SHOWN))


def _table(grid: Grid) -> Iterator[str]:
    yield from [f"**{_text(grid.caption)}**", ""]
    yield _row(grid.headings)
    yield _row(["---", *("---:" if grid.numbers else "---" for _ in grid.headings[1:])], plain=True)
    yield from (_row(row) for row in grid.rows)
    yield ""


def _folded(title: str, grid: Grid) -> Iterator[str]:
    yield from [f"<details><summary>{title}</summary>", ""]
    yield from _table(grid)
    yield from ["</details>", ""]


def _row(cells: Sequence[str], *, plain: bool = False) -> str:
    return "| " + " | ".join(cells if plain else map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    short = text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 3] + "..."
    return _text(short)


def _text(text: str) -> str:
    """Return a text in one line in which nothing is markup: neither HTML nor links, tables, code or emphasis."""
    line = " ".join(text.split())
    for mark in "\\`*_[]|~":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
