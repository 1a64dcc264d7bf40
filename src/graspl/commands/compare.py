"""`graspl compare`: methods by seeds, with intervals."""

import time
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.reporting.figures import curves_figure
from graspl.runs import write_json_atomic, write_text_atomic
from graspl.studies.comparison import as_csv, comparison_of, curves_by_fit
from graspl.studies.plan import Fit, plan_fits
from graspl.studies.workers import run_fits


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl compare`."""
    # As a plain dict: jsonargparse would make objects of the class paths within
    about = "by name, what each method adds to it; the word {seed} stands for the fit's seed"
    parser.add_argument("--methods", type=dict, required=True, help=about)
    about = "by name, what each task adds to every method; one task where empty"
    parser.add_argument("--tasks", type=dict, default={}, help=about)
    parser.add_function_arguments(compare, skip={"methods", "tasks"})


def compare(
    fit: Path,
    methods: dict[str, dict[str, Any]],
    tasks: dict[str, dict[str, Any]] = {},  # noqa: B006 - never changed
    seeds: list[int] = [0, 1, 2, 3, 4],  # noqa: B006 - never changed
    base_model: str | None = None,
    baseline: str = "naive",
    norm_baseline: str | None = None,
    reference: str | None = None,
    levels: list[float] = [0.90, 0.95],  # noqa: B006 - never changed
    jobs: int = 1,
    fast: bool = False,
    fast_methods: list[str] = [],  # noqa: B006 - never changed
    fast_seeds: list[int] = [0, 1],  # noqa: B006 - never changed
    out: Path = Path("runs/compare"),
) -> dict[str, Any]:
    """Run what is not there yet, then write `comparison.json`, `comparison.csv` and `comparison.svg`.

    Args:
        fit: configuration that all fits share: data and trainer.
        methods: by name, what each method adds to it; the word {seed} stands for the fit's seed.
        tasks: by name, what each adds to every method: its data, its base model; one task where empty.
        seeds: of the fits.
        base_model: of every method; what each says where None.
        baseline: the method that the others are compared with.
        norm_baseline: a naive method that trains on for long, compared at equal norm of the update; the baseline where None.
        reference: the method whose share removed the others' is told from, fit by fit; none where None.
        levels: of adherence, where they are compared.
        jobs: fits at a time, each in a process of its own.
        fast: only fast_methods and fast_seeds.
        fast_methods: what `fast` leaves; all where empty.
        fast_seeds: what `fast` leaves.
        out: the study's folder; each fit is `<out>/<method>/seed_<seed>`, with tasks `<out>/<task>/<method>/seed_<seed>`.

    Raises:
        GrasplError: the plan cannot be carried out, or every fit failed.
    """
    if fast:
        methods, seeds = _fast_part(methods, fast_methods), fast_seeds
        norm_baseline, reference = (name if name in methods else None for name in (norm_baseline, reference))
    named = (("baseline", baseline), ("norm_baseline", norm_baseline), ("reference", reference))
    for option, name in named:
        if name is not None and name not in methods:
            raise GrasplError(f"{option}: {name} is not among the methods ({', '.join(methods)})")
    if jobs < 1:
        raise GrasplError(f"jobs: {jobs} is below 1")
    if base_model is not None:
        methods = {name: _on(config, base_model) for name, config in methods.items()}
    fits = plan_fits(fit, methods, seeds, out, tasks)
    failed = _run_missing(fits, jobs)
    comparison = comparison_of(
        [each for each in fits if each.name not in failed], baseline, levels, norm_baseline, reference
    )
    comparison |= {"failed": failed, "fit": str(fit), "seeds": seeds}
    write_json_atomic(out / "comparison.json", comparison)
    write_text_atomic(out / "comparison.csv", as_csv(comparison))
    write_text_atomic(out / "comparison.svg", curves_figure(curves_by_fit(comparison)))
    terminal = console()
    for level in comparison["levels"]:
        terminal.print(_table(comparison, level))
    for line in (
        *(f"failed: {name}: {why}" for name, why in failed.items()),
        f"comparison: {out / 'comparison.json'}",
    ):
        terminal.print(line, soft_wrap=True, highlight=False, markup=False)
    return comparison


def _fast_part(methods: dict[str, dict[str, Any]], names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the methods named; all where none is."""
    unknown = next((name for name in names if name not in methods), None)
    if unknown is not None:
        raise GrasplError(f"fast_methods: {unknown} is not among the methods")
    return {name: methods[name] for name in names} if names else methods


def _on(config: dict[str, Any], base_model: str) -> dict[str, Any]:
    """Return a method's configuration with another base model."""
    model = config.get("model", {})
    init_args = {**model.get("init_args", {}), "base_model": base_model}
    return {**config, "model": {**model, "init_args": init_args}}


def _run_missing(fits: list[Fit], jobs: int) -> dict[str, str]:
    """Run the fits that are not there, telling how far it is, and return what failed."""
    missing = [each for each in fits if not each.is_done()]
    terminal = console()
    terminal.print(f"{len(fits)} fits, {len(fits) - len(missing)} of them done already", highlight=False)
    failed, began = {}, time.monotonic()
    for done, (each, error) in enumerate(run_fits(missing, jobs=jobs) if missing else [], start=1):
        left = (time.monotonic() - began) / done * (len(missing) - done)
        state = "done" if error is None else f"failed: {error}"
        terminal.print(
            f"[{done}/{len(missing)}, {left / 60:.0f} min left] {each.name}: {state}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        if error is not None:
            failed[each.name] = error
    if failed and len(failed) == len(fits):
        raise GrasplError(f"methods: every fit failed, e.g. {fits[0].name}: {failed[fits[0].name]}")
    return failed


COLUMNS = (
    ("spillover", "spill-over"),
    ("removed", "excess removed"),
    ("behind", "less than reference"),
    ("coherence_change", "coherence lost or won"),
    ("unrelated/good_change", "good elsewhere lost or won"),
    ("kl", "kl"),
    ("norm_matched/spillover", "naive at equal norm"),
    ("steps", "steps"),
    ("step_ratio", "over naive's"),
)


def _table(comparison: dict[str, Any], level: str) -> Table:
    """Return one row a method: mean and 95 % interval of each figure at a level of adherence."""
    over = "tasks" if "tasks" in comparison else "seeds"
    columns = [each for each in COLUMNS if each[0] != "behind" or comparison["reference"] is not None]
    table = Table(
        "method",
        "reached",
        *(title for _, title in columns),
        title=f"at adherence {level}: mean +- half of the 95 % interval over {over}",
    )
    for method, found in comparison["levels"][level].items():
        cells = [_interval(found.get(name)) for name, _ in columns]
        reached = found.get("reached", found.get("step", {}).get("n", 0))
        table.add_row(method, f"{reached} of {found['fits']}", *cells)
    return table


def _interval(summary: dict[str, Any] | None) -> str:
    if not summary or summary["mean"] is None:
        return "-"
    digits = 0 if abs(summary["mean"]) >= 10 else 3
    text = f"{summary['mean']:.{digits}f}"
    return (
        text if summary["low"] is None else f"{text} +- {(summary['high'] - summary['low']) / 2:.{digits}f}"
    )
