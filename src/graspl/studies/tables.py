"""A comparison as tables."""

from collections.abc import Mapping
from typing import Any

COLUMNS = {
    "reached": "reached",
    "spillover": "spill-over",
    "excess": "excess",
    "removed": "excess removed",
    "behind": "less than reference",
    "coherence_change": "coherence lost or won",
    "unrelated/good_change": "good elsewhere lost or won",
    "kl": "kl",
    "norm_matched/spillover": "naive at equal norm",
    "area": "area under the curve",
    "steps": "steps",
    "step_ratio": "over naive's",
    "cost_ratio": "operations over naive's",
    "needs": "needs beyond the task's rows",
}
"""Title of each column, by figure."""


def columns_of(comparison: Mapping[str, Any]) -> list[str]:
    """Return the columns that a comparison has something to say in."""
    known = {name for methods in comparison["levels"].values() for each in methods.values() for name in each}
    known |= {"reached", "area"}
    if comparison["reference"] is None:
        known.discard("behind")
    if comparison.get("needs"):
        known.add("needs")
    return [name for name in COLUMNS if name in known]


def cell(comparison: Mapping[str, Any], level: str, method: str, column: str) -> str:
    """Return a cell's text: mean and half of the 95 % interval; `-` where there is nothing.

    Args:
        comparison: content of `comparison.json`.
        level: of adherence, as in it.
        method: the row.
        column: of COLUMNS.
    """
    found = comparison["levels"][level][method]
    if column == "reached":
        return f"{found.get('reached', found.get('step', {}).get('n', 0))} of {found['fits']}"
    if column == "needs":
        return comparison.get("needs", {}).get(method, "-")
    return _interval(comparison["area"].get(method) if column == "area" else found.get(column))


def as_markdown(comparison: Mapping[str, Any]) -> str:
    """Return the tables of all levels, the chosen settings and the verdict in Markdown."""
    columns = columns_of(comparison)
    over = "tasks" if "tasks" in comparison else "seeds"
    lines = []
    for level, methods in comparison["levels"].items():
        lines += [f"## At adherence {level}", "", f"Mean +- half of the 95 % interval over {over}.", ""]
        lines += [_row(["method", *(COLUMNS[name] for name in columns)]), _row(["---"] * (len(columns) + 1))]
        lines += [
            _row([method, *(cell(comparison, level, method, name) for name in columns)]) for method in methods
        ]
        lines.append("")
    if comparison.get("tuned"):
        lines += ["## Settings chosen on development data", ""]
        lines += [f"- {method}: {_settings(chosen)}" for method, chosen in comparison["tuned"].items()]
        lines.append("")
    lines += ["## Verdict", "", *(f"- {line.strip()}" for line in comparison.get("verdict", []))]
    return "\n".join(lines) + "\n"


def _settings(chosen: Mapping[str, Any] | None) -> str:
    if chosen is None:
        return "every trial failed"
    return ", ".join(f"`{key}: {value}`" for key, value in chosen.items())


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def _interval(summary: Mapping[str, Any] | None) -> str:
    if not summary or summary["mean"] is None:
        return "-"
    digits = 0 if abs(summary["mean"]) >= 10 else 3
    text = f"{summary['mean']:.{digits}f}"
    return (
        text if summary["low"] is None else f"{text} +- {(summary['high'] - summary['low']) / 2:.{digits}f}"
    )
