"""What a page and its Markdown version say, in their order; `study_sheet.py` fills the same form for a study."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graspl.analysis.changes import SuiteChanges, changes
from graspl.analysis.comparison import Comparison
from graspl.analysis.removal import Removal, removal
from graspl.analysis.verdicts import key_points, verdict
from graspl.reporting.answers import Example, examples
from graspl.reporting.beside import Beside, beside
from graspl.reporting.environment import heat_map
from graspl.reporting.grids import Grid, ends_grid, judged_grid, methods_grid, runs_grid
from graspl.reporting.plots import Plot, changes_plot, spectra_plot, step_plots, tradeoff_plot
from graspl.reporting.run_facts import commands_grid, facts_grid, options_grid
from graspl.reporting.series import series_of

MOST_MAPS = 8  # Methods with heat maps; more would be pages of them


@dataclass(frozen=True)
class Changes:
    """How questions changed from one method to another."""

    title: str
    suites: list[SuiteChanges]
    plot: Plot


@dataclass(frozen=True)
class Sheet:
    """Everything that is shown."""

    title: str
    removal: Removal
    beside: Beside
    tradeoff: Plot
    points: list[str]  # The verdict in sentences
    pairs: list[str] = field(default_factory=list)  # Each fit against the naive one, to fold
    figures: list[Grid] = field(default_factory=list)  # The table of the figures, and others to fold
    steps: list[Plot] = field(default_factory=list)
    changes: list[Changes] = field(default_factory=list)
    judged: Grid | None = None
    judged_lines: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    spectra: Plot | None = None
    maps: list[dict[str, Any]] = field(default_factory=list)
    facts: list[Grid] = field(default_factory=list)  # The first is shown, the others are folded
    notes: list[str] = field(default_factory=list)  # What is left out, and why
    files: dict[str, str] = field(default_factory=dict)  # By run


def sheet_of(comparison: Comparison, directions: Sequence[Path] = ()) -> Sheet:
    """Return what there is to say about runs side by side.

    Args:
        comparison: the runs.
        directions: files whose assumption reports count beside those of the runs.
    """
    series, runs = series_of(comparison), comparison.runs
    spectra, share = spectra_plot(series), removal(comparison)
    first = {name: next(iter(each.values())).folder for name, each in comparison.methods.items()}
    grids = [
        methods_grid(comparison),
        runs_grid(comparison),
        ends_grid(comparison) if comparison.ends else None,
    ]
    facts = [
        facts_grid({name: list(each.values()) for name, each in comparison.methods.items()}),
        options_grid(first),
        commands_grid({run.name: run.commands for run in runs}),
    ]
    return Sheet(
        title="graspl report",
        removal=share,
        beside=beside(runs, directions),
        tradeoff=tradeoff_plot(series, comparison.figure),
        points=key_points(comparison),
        pairs=verdict(comparison),
        figures=[each for each in grids if each is not None],
        steps=step_plots(series),
        changes=_changes(comparison, share.method),
        judged=judged_grid(comparison) if comparison.judged else None,
        examples=examples([next(iter(each.values())) for each in comparison.methods.values()]),
        spectra=spectra if spectra.traces else None,
        maps=_maps(comparison),
        facts=[grid for grid in facts if grid.rows],
        notes=[f"{comparison.rho_left_out}."] if comparison.rho_left_out else [],
        files={run.name: str(run.folder.path) for run in runs},
    )


def _changes(comparison: Comparison, best: str) -> list[Changes]:
    """Return the changes from the naive fit to each other method, the best one first, and to the naive fit from the base."""
    naive = list(comparison.methods.get(comparison.baseline or "", {}).values())
    base = [run for run in comparison.runs if run.is_base][:1]
    ours = {id(run) for run in comparison.others}
    others = [
        name for name, runs in comparison.methods.items() if all(id(run) in ours for run in runs.values())
    ]
    pairs = [
        (name, list(comparison.methods[name].values()), comparison.baseline or "", naive)
        for name in sorted(others, key=lambda name: name != best)
    ]
    pairs += [(comparison.baseline or "", naive, base[0].name, base)] if base else []
    found = []
    for number, (name, runs, before, controls) in enumerate(pair for pair in pairs if pair[1] and pair[3]):
        suites = changes(runs, controls)
        if suites:
            plot = changes_plot(suites, f"changes-{number}")
            found.append(Changes(f"From {before} to {name}", suites, plot))
    return found


def _maps(comparison: Comparison) -> list[dict[str, Any]]:
    """Return heat maps of each method's first adapter: how much one direction dominates each site's update, and reliance."""
    found = []
    for method, runs in list(comparison.methods.items())[:MOST_MAPS]:
        sites = next(iter(runs.values())).evaluation.get("sites", {})
        shares = {name: _share(site["singular_values"]) for name, site in sites.items()}
        if any(shares.values()):
            found.append(heat_map(f"{method}: sigma 1 over ||dW||", shares, highest=1.0))
            rho = {name: site["rho"] for name, site in sites.items() if "rho" in site}
            if rho and not comparison.rho_left_out:
                found.append(heat_map(f"{method}: reliance rho", rho, highest=1.0))
    return found


def _share(values: list[float]) -> float:
    size = sum(value**2 for value in values) ** 0.5
    return values[0] / size if size > 0 else 0.0
