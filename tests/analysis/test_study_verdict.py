"""What a comparison says in words and tables."""

import io

import pytest
from rich.console import Console
from test_fits import log, logs

from graspl.analysis.fits import at_level
from graspl.analysis.study_verdict import study_verdict
from graspl.reporting.markdown import as_markdown, cell, columns_of
from graspl.reporting.tables import study_tables

BASE = {"spillover": 0.1}


def comparison(**more):
    """Three seeds: `ours` removes about half, `best` nearly all, `worse` nothing, `noisy` half or so, `short` stops early."""
    ends = {
        "naive": (0.6, 0.6, 0.6), "ours": (0.35, 0.36, 0.34), "best": (0.11, 0.12, 0.12),
        "worse": (0.6, 0.59, 0.6), "noisy": (0.2, 0.4, 0.5),
    }  # fmt: skip
    rows = {
        name: {seed: log([(9, 0.5, 0.1), (19, 0.9, end)]) for seed, end in enumerate(each)}
        for name, each in ends.items()
    }
    rows["short"] = {seed: log([(9, 0.5, 0.1)]) for seed in range(3)}
    levels = {"0.90": at_level(logs(rows), "naive", BASE, 0.9, reference="ours")}
    area = {name: {"mean": None} for name in rows}
    return {"baseline": "naive", "reference": "ours", "levels": levels, "area": area, **more}


def test_methods_are_placed_by_the_interval_of_the_paired_difference():
    first, *rest = study_verdict(comparison())
    assert first.startswith("At adherence 0.90: ours removes 50 %, 45 to 55 of naive's excess")
    assert "(3 of 3 reached it)" in first
    assert [line.strip().split(":")[0] for line in rest] == [
        "Remove more than ours", "Remove less than ours", "Not told apart from ours", "Never reached it",
    ]  # fmt: skip
    for line, name in zip(rest, ("best (97 %", "worse (1 %", "noisy (47 %", "short"), strict=True):
        assert name in line
        assert "naive" not in line.split(":")[1]


def test_why_nothing_is_placed():
    assert "no reference method is named" in study_verdict(comparison(reference=None))[0]
    assert "short never reached it" in study_verdict(comparison(reference="short"))[0]
    assert "other never reached it" in study_verdict(comparison(reference="other"))[0]
    same = comparison(baseline="ours", reference="naive")
    for found in same["levels"]["0.90"].values():
        found["removed"] = {"mean": None, "low": None, "high": None}
    assert "no excess spill-over is measured" in study_verdict(same)[0]


def test_the_table_has_every_figure_and_what_a_method_needs():
    whole = comparison(needs={"best": "labels | more"}, tuned={"best": {"a.b": 1}, "short": None})
    whole["area"]["best"] = {"mean": 0.25, "low": 0.2, "high": 0.3}
    text = as_markdown(whole | {"verdict": study_verdict(whole)})
    row = next(line for line in text.splitlines() if line.startswith("| best"))
    assert "0.250 +- 0.050" in row
    assert r"labels \| more" in row
    assert row.split(" | ")[1] == "3 of 3"
    assert "- best: `a.b: 1`" in text
    assert "- short: every trial failed" in text
    assert "Remove more than ours" in text
    assert cell(whole, "0.90", "short", "spillover") == "-"
    assert "behind" not in columns_of(whole | {"reference": None})
    assert "needs" not in columns_of(comparison())


def test_a_column_without_a_figure_is_left_out():
    found = comparison()
    assert {"removed", "steps"} <= {*columns_of(found)}
    assert "coherence_change" not in columns_of(found)
    found["levels"]["0.90"]["best"]["coherence_change"] = {"mean": 0.0, "low": None, "high": None}
    assert "coherence_change" in columns_of(found)


def test_a_terminal_of_80_characters_shows_whole_figures_the_most_asked_for_first():
    found = comparison()
    others = ["free_near/judged", "general/loss", "truthful/harmful_preferred", "near/margin"]
    for each in found["levels"]["0.90"].values():
        for name in others:
            each |= {
                key: {"mean": 0.5, "low": 0.4, "high": 0.6} for key in (f"{name}_removed", f"{name}_change")
            }
    found["measured"] = {"others": others}
    console = Console(width=200, file=io.StringIO())
    console.print(*study_tables(found))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith("│ best"))
    cells = [each.strip() for each in row.strip("│").split("│")]
    assert cells[:4] == ["best", "3 of 3", cell(found, "0.90", "best", "removed"), "1.000 +- 0.000"]
    assert cells[4] == "0.500 +- 0.100"


@pytest.mark.parametrize("tasks", [True, False])
def test_what_was_reached_is_counted_over_tasks_too(tasks):
    found = comparison()
    if tasks:
        for each in found["levels"]["0.90"].values():
            each["reached"] = 7
    assert cell(found, "0.90", "ours", "reached") == ("7 of 3" if tasks else "3 of 3")
