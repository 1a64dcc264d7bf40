"""Insert committed figures into the pages that name them: `make docs` runs it.

A page marks a place with `<!-- results: FILE PATH -->` and `<!-- /results -->`. What stands between them comes from
FILE, a JSON beside this script. PATH leads to it through `figures`, one key a step, separated by slashes. A cell is
inserted in the line, a mapping of rows as a table. ` | a, b` after PATH names the columns that are shown.
"""

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent
ROOT = RESULTS.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = re.compile(r"(<!-- results: (\S+\.json) (.+?) -->)(.*?)(<!-- /results -->)", re.DOTALL)
CELL = {"mean", "half_width", "low", "high", "percent"}


def figure(file: str, path: str) -> Any:
    """Return what a results file has at a path; numbers are the text that the file has, so 0.150 stays 0.150."""
    found = json.loads((RESULTS / file).read_text(), parse_float=str, parse_int=str)["figures"]
    for key in path.split("/"):
        found = found[key]
    return found


def cell(value: Any) -> str:
    """Return one figure as text."""
    if value is None:
        return "-"
    if not isinstance(value, dict):
        return str(value)
    text = f"{value['percent']} %" if "percent" in value else value["mean"]
    if "half_width" in value:
        text += f" ± {value['half_width']}"
    if "low" in value:
        text += f" ({value['low']} to {value['high']})"
    return text


def table(rows: dict[str, dict[str, Any]], columns: list[str]) -> str:
    """Return rows as a Markdown table."""
    columns = columns or list(next(iter(rows.values())))
    lines = [
        columns,
        ["---"] * len(columns),
        *([cell(row[name]) for name in columns] for row in rows.values()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def current(text: str) -> str:
    """Return a page's text with every marked figure as the results files have it."""

    def insert(match: re.Match[str]) -> str:
        path, _, columns = match[3].partition(" | ")
        value = figure(match[2], path)
        if isinstance(value, dict) and not set(value) <= CELL:
            shown = f"\n\n{table(value, columns.split(', ') if columns else [])}\n\n"
        else:
            shown = cell(value)
        return match[1] + shown + match[5]

    return MARK.sub(insert, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(current(page.read_text()))
