"""A study's comparison as columns, Markdown and CSV."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from graspl.analysis.removal import removal_sentence, study_removal
from graspl.analysis.study_verdict import reached

# Title of each column, by figure.
COLUMNS = {
    "reached": "reached",
    "spillover": "spill-over",
    "excess": "excess",
    "removed": "excess removed",
    "behind": "less than reference",
    "coherence_change": "change in coherence",
    "unrelated/good_change": "change in good answers elsewhere",
    "kl": "kl",
    "norm_matched/spillover": "naive at equal norm",
    "area": "area under the curve",
    "steps": "steps",
    "step_ratio": "steps over naive's",
    "cost_ratio": "operations over naive's",
    "needs": "needs beyond the task's rows",
}
_NO_SUMMARY = ("seeds", "tasks", "fits", "reached")


def columns_of(comparison: Mapping[str, Any]) -> list[str]:
    """Return the columns in which a comparison has a figure."""
    every = [each for methods in comparison["levels"].values() for each in methods.values()]
    known = {
        name
        for each in every
        for name, found in each.items()
        if name not in _NO_SUMMARY and _interval(found) != "-"
    }
    known |= {"reached", "area"}
    if comparison["reference"] is None:
        known.discard("behind")
    if comparison.get("needs"):
        known.add("needs")
    others = comparison.get("measured", {}).get("others", [])
    more = [f"{name}_{what}" for name in others for what in ("removed", "change")]
    return [name for name in (*COLUMNS, *more) if name in known]


def title_of(column: str) -> str:
    """Return the title of a column, e.g. `near/margin removed` for one of the study's own."""
    return COLUMNS.get(column) or " ".join(column.rsplit("_", 1))


def cell(comparison: Mapping[str, Any], level: str, method: str, column: str) -> str:
    """Return the text of a method's cell in a column of COLUMNS: mean and half of the 95 % interval; `-` for None."""
    found = comparison["levels"][level][method]
    if column == "reached":
        return reached(found)
    if column == "needs":
        return comparison.get("needs", {}).get(method, "-")
    return _interval(comparison["area"].get(method) if column == "area" else found.get(column))


def as_markdown(comparison: Mapping[str, Any]) -> str:
    """Return the verdict, the tables of all levels, judged rates and the chosen settings as Markdown."""
    columns = columns_of(comparison)
    over = "tasks" if "tasks" in comparison else "seeds"
    lines = [f"**{removal_sentence(study_removal(comparison))}**", ""]
    lines += [f"- {line.strip()}" for line in comparison.get("verdict", [])] + [""]
    for level, methods in comparison["levels"].items():
        lines += [f"## At adherence {level}", "", f"Mean +- half of the 95 % interval over {over}.", ""]
        lines += [_row(["method", *map(title_of, columns)]), _row(["---"] * (len(columns) + 1))]
        for method in methods:
            lines.append(_row([method, *(cell(comparison, level, method, name) for name in columns)]))
        lines.append("")
    judged = judged_lines(comparison)
    if judged:
        lines += ["## Judged rates", "", *(f"- {line}" for line in judged), ""]
    if comparison.get("tuned"):
        lines += ["## Settings chosen on development data", ""]
        lines += [f"- {method}: {_settings(chosen)}" for method, chosen in comparison["tuned"].items()]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def judged_lines(comparison: Mapping[str, Any]) -> list[str]:
    """Return one line for each task, method and judged suite: the rate over seeds; [] where nothing was judged."""
    return [
        f"{f'{task} {method}'.strip()}, {suite}: {_interval(each)} (n = {each['n']})"
        for task, part in comparison.get("tasks", {"": comparison}).items()
        for method, suites in part.get("judged", {}).items()
        for suite, each in suites.items()
    ]


def as_csv(comparison: Mapping[str, Any]) -> str:
    """Return one row for each task, method, level and figure; rows over tasks come last, and the area's level is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["task", "method", "adherence", "figure", "n", "mean", "sd", "low", "high"])
    for task, part in {**comparison.get("tasks", {}), "": comparison}.items():
        for level, methods in part["levels"].items():
            for method, found in methods.items():
                for name, summary in found.items():
                    if name not in _NO_SUMMARY:
                        writer.writerow([task, method, level, name, *summary.values()])
        for method, found in part["area"].items():
            summary = [value for name, value in found.items() if name not in _NO_SUMMARY]
            writer.writerow([task, method, "", "area", *summary])
    return file.getvalue()


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
    low, high = summary["low"], summary["high"]
    return text if low is None else f"{text} +- {(high - low) / 2:.{digits}f}"
