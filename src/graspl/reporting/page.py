"""One self-contained HTML page about runs or about a study: it loads nothing and escapes every text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from graspl.analysis.comparison import Comparison
from graspl.analysis.removal import Removal, percent
from graspl.reporting.environment import render
from graspl.reporting.figures import svg_of
from graspl.reporting.grids import changes_grid
from graspl.reporting.interactive import figure_of
from graspl.reporting.plots import Plot
from graspl.reporting.sheet import Sheet, sheet_of

CHANGES_SHOWN = 12  # Questions of a suite in a table; the download has all
ANSWERS_SHOWN = 4  # Prompts before the fold


def render_page(comparison: Comparison, directions: Sequence[Path] = ()) -> str:
    """Return the page about runs as HTML text.

    Args:
        comparison: the runs.
        directions: files whose assumption reports count beside those of the runs.
    """
    return render_sheet(sheet_of(comparison, directions))


def render_sheet(sheet: Sheet) -> str:
    """Return a page as HTML text; the texts that models wrote are escaped."""
    changes = [
        {
            "title": each.title,
            "plot": _drawn(each.plot, height=2.6),
            "suites": [
                {
                    "suite": suite,
                    "grid": changes_grid(suite, CHANGES_SHOWN),
                    "most": max(abs(one.size) for one in suite.changes),
                }
                for suite in each.suites
            ],
        }
        for each in sheet.changes
    ]
    return render(
        "page.html",
        {
            "sheet": sheet,
            "sections": _sections(sheet),
            "removal": _told(sheet.removal),
            "tradeoff": _drawn(sheet.tradeoff),
            "steps": [_drawn(each, width=4.6, height=3.0) for each in sheet.steps],
            "changes": changes,
            "spectra": _drawn(sheet.spectra) if sheet.spectra else None,
            "suites": list(dict.fromkeys(each.suite for each in sheet.examples)),
            "shown": ANSWERS_SHOWN,
            "shown_changes": CHANGES_SHOWN,
        },
        interactive=True,
    )


def _sections(sheet: Sheet) -> dict[str, str]:
    """Return the titles of the sections that there are, by their id."""
    there = {
        "figures": ("Figures", True),
        "steps": ("Over steps", sheet.steps),
        "changes": ("Changes by question", sheet.changes),
        "judged": ("Judged", sheet.judged or sheet.judged_lines),
        "answers": ("Answers", sheet.examples),
        "weights": ("Weights", sheet.maps or sheet.spectra),
        "meaning": ("Meaning", sheet.beside.meanings),
        "assumptions": ("Assumptions", sheet.beside.assumptions or sheet.beside.null_spaces),
        "run-facts": ("Run facts", True),
    }
    return {name: title for name, (title, shown) in there.items() if shown}


def _drawn(plot: Plot, **size: float) -> dict[str, Any]:
    """Return a plot as a picture, and for the page's script."""
    return {
        "title": plot.title,
        "x": plot.x,
        "y": plot.y,
        "svg": Markup(svg_of(plot, **size)),
        "figure": figure_of(plot),
    }


def _told(found: Removal) -> dict[str, str]:
    """Return the verdict in the pieces in which it is shown."""
    if found.share is None:
        return {
            "large": found.instead[0].upper() + found.instead[1:],
            "interval": "",
            "sentence": found.reason,
            "beside": "",
        }
    spread = (
        f"no interval: {found.over}"
        if found.low is None
        else f"95 % interval {percent(found.low)} to {percent(found.high or 0.0)}, over {found.over}"
    )
    return {
        "large": percent(found.share),
        "interval": spread,
        "sentence": f"of the spill-over that {found.baseline} adds to the base model is gone with {found.method}, "
        f"{found.where}.",
        "beside": found.beside,
    }
