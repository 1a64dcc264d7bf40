"""One self-contained HTML page: no script, nothing loaded from elsewhere, every text escaped."""

from collections import Counter

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from graspl import __version__
from graspl.reporting.comparison import METRICS, Comparison
from graspl.reporting.figures import reliance_figure, spectra_figure, tradeoff_figure
from graspl.reporting.tables import figure

PROMPTS_SHOWN = 24
"""Of each suite; generations.jsonl has all."""


def render_page(comparison: Comparison) -> str:
    """Return the page as HTML text.

    Args:
        comparison: the runs; what their models wrote is data and is escaped.
    """
    environment = Environment(
        loader=PackageLoader("graspl.reporting", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["figure"] = figure
    runs = comparison.runs
    return environment.get_template("page.html").render(
        version=__version__,
        comparison=comparison,
        metrics=METRICS,
        figures={
            "Trade-off": Markup(tradeoff_figure(runs)),
            "Spectra": Markup(spectra_figure(runs)),
            "Reliance by site": Markup(reliance_figure(runs)),
        },
        captions={
            "Trade-off": "Every validation of a fit. Lower and further right is better; runs are compared where they reach "
            "the same adherence, never at the same step.",
            "Spectra": "Singular values of every site's update over the first one. One value far above the rest is what "
            "makes a direction identifiable.",
            "Reliance by site": "Share of each site's update written along the directions. A low rho only shows that "
            "the constraint held; the trade-off is the result.",
        },
        examples=_examples(comparison),
    )


def _examples(comparison: Comparison) -> list[dict[str, object]]:
    """Return prompts that some run answered, with the first answer of each run."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    shown: Counter[str] = Counter()
    for run in comparison.runs:
        for row in run.generations:
            key = (str(row["suite"]), str(row["prompt"]))
            if key not in rows and shown[key[0]] < PROMPTS_SHOWN:
                rows[key] = {}
                shown[key[0]] += 1
            if key in rows:
                rows[key].setdefault(run.name, str(row["answer"]))
    return [
        {"suite": suite, "prompt": prompt, "answers": answers} for (suite, prompt), answers in rows.items()
    ]
