"""`graspl compare`: methods by seeds, with intervals."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser
from rich.table import Column, Table

from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.reporting.figures import curves_figure
from graspl.reporting.tradeoff import relative_levels
from graspl.runs import write_json_atomic, write_text_atomic
from graspl.studies.comparison import as_csv, comparison_of, curves_by_fit
from graspl.studies.plan import Fit, Method, merged, plan_fits
from graspl.studies.tables import COLUMNS, as_markdown, cell, columns_of
from graspl.studies.tuning import Trial, Tuning, choose, logs_of, plan_trials, with_settings
from graspl.studies.verdict import verdict
from graspl.studies.workers import run_fits


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl compare`."""
    # As a plain dict: jsonargparse would make objects of the class paths within
    about = (
        "by name, what each method adds to it, with tune (values to choose from by dotted key) and needs (data beyond the "
        "task's rows, in words); {seed} stands for the fit's seed, {fit:NAME} for the folder of another method's fit"
    )
    parser.add_argument("--methods", type=dict, required=True, help=about)
    about = "by name, what each task adds to every method; one task where empty"
    parser.add_argument("--tasks", type=dict, default={}, help=about)
    parser.add_argument(
        "--over", type=dict, default={}, help="put over every method's configuration, e.g. its rows"
    )
    parser.add_function_arguments(compare, skip={"methods", "tasks", "over"})


def compare(
    fit: Path,
    methods: dict[str, dict[str, Any]],
    tasks: dict[str, dict[str, Any]] = {},  # noqa: B006 - never changed
    seeds: list[int] = [0, 1, 2, 3, 4],  # noqa: B006 - never changed
    over: dict[str, Any] = {},  # noqa: B006 - never changed
    base_model: str | None = None,
    baseline: str = "naive",
    norm_baseline: str | None = None,
    reference: str | None = None,
    tuning: Tuning | None = None,
    levels: list[float] = [0.90, 0.95],  # noqa: B006 - never changed
    levels_of: Literal["adherence", "baseline"] = "adherence",
    jobs: int = 1,
    fast: bool = False,
    fast_methods: list[str] = [],  # noqa: B006 - never changed
    fast_seeds: list[int] = [0, 1],  # noqa: B006 - never changed
    out: Path = Path("runs/compare"),
) -> dict[str, Any]:
    """Run what is not there yet, then write `comparison.json`, `.csv`, `.md` and `.svg`, and `tuning.json`.

    Args:
        fit: configuration that all fits share: data and trainer.
        methods: by name, what each method adds to it, with `tune` (values to choose from by dotted key) and `needs` (data
            beyond the task's rows, in words); {seed} stands for the fit's seed, {fit:NAME} for the folder of another
            method's fit of the same seed.
        tasks: by name, what each adds to every method: its data, its base model; one task where empty.
        seeds: of the fits.
        over: put over every method's configuration, e.g. {"data": {"init_args": {"train": "mine.jsonl"}}}.
        base_model: of every method; what each says where None.
        baseline: the method that the others are compared with.
        norm_baseline: a naive method that trains on for long, compared at equal norm of the update; the baseline where None.
        reference: the method whose share removed the others' is told from, fit by fit; none where None.
        tuning: trials, seeds and development data on which methods with `tune` get their settings; as they are where None.
        levels: of adherence, where they are compared.
        levels_of: what they are: `adherence` itself, or shares of what the `baseline` gains over the base model at its best,
            for tasks where nobody knows what adherence to expect.
        jobs: fits at a time, each in a process of its own.
        fast: only fast_methods and fast_seeds, and no tuning.
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
    known = {name: _parsed(name, given, over, base_model) for name, given in methods.items()}
    configs = {name: each.config for name, each in known.items()}
    plan_fits(fit, configs, seeds, out, tasks)  # what is wrong with the plan is said before anything runs
    relative = levels_of == "baseline"
    chosen, failed = {}, {}
    if tuning is not None and not fast:
        relative_to = baseline if relative else None
        trials = plan_trials(fit, known, tuning, seeds, out, baseline=relative_to)
        chosen, failed = _tuned(trials, levels, relative_to, jobs, out)
    # A method of which every trial failed is left out, and told among the failures
    configs = {
        name: with_settings(config, chosen.get(name) or {}, f"methods.{name}.tune")
        for name, config in configs.items()
        if chosen.get(name, {}) is not None
    }
    fits = plan_fits(fit, configs, seeds, out, tasks)
    failed |= _run_missing(fits, jobs, "fits")
    if all(each.name in failed for each in fits):
        raise GrasplError(f"methods: every fit failed, e.g. {fits[0].name}: {failed[fits[0].name]}")
    comparison = comparison_of(
        [each for each in fits if each.name not in failed],
        baseline,
        levels,
        norm_baseline,
        reference,
        relative=relative,
    )
    comparison |= {"failed": failed, "fit": str(fit), "seeds": seeds, "tuned": chosen}
    comparison["needs"] = {name: each.needs for name, each in known.items() if each.needs}
    comparison["verdict"] = verdict(comparison)
    _tell(comparison, out)
    return comparison


def _tuned(
    trials: list[Trial], levels: list[float], relative_to: str | None, jobs: int, out: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run the trials, write `tuning.json`, and return each method's settings and what failed."""
    failed = _run_missing([each for trial in trials for each in trial.fits], jobs, "trials")
    if relative_to is not None:
        levels = relative_levels(levels, logs_of(relative_to, trials, failed))
    found = choose(trials, levels, failed)
    write_json_atomic(out / "tuning.json", {"levels": levels, "methods": found})
    return {name: each["chosen"] for name, each in found.items()}, failed


def _tell(comparison: dict[str, Any], out: Path) -> None:
    """Write a comparison's files and print its tables and its verdict."""
    write_json_atomic(out / "comparison.json", comparison)
    write_text_atomic(out / "comparison.csv", as_csv(comparison))
    write_text_atomic(out / "comparison.md", as_markdown(comparison))
    write_text_atomic(out / "comparison.svg", curves_figure(curves_by_fit(comparison)))
    terminal = console()
    for level in comparison["levels"]:
        terminal.print(_table(comparison, level))
    for line in (
        *comparison["verdict"],
        *(f"failed: {name}: {why}" for name, why in comparison["failed"].items()),
        f"comparison: {out / 'comparison.json'}",
    ):
        terminal.print(line, soft_wrap=True, highlight=False, markup=False)


def _fast_part(methods: dict[str, dict[str, Any]], names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the methods named; all where none is."""
    unknown = next((name for name in names if name not in methods), None)
    if unknown is not None:
        raise GrasplError(f"fast_methods: {unknown} is not among the methods")
    return {name: methods[name] for name in names} if names else methods


def _parsed(name: str, given: Mapping[str, Any], over: Mapping[str, Any], base_model: str | None) -> Method:
    """Read a method, and put over it what the study says for all."""
    method = Method.parse(name, given)
    config = merged(method.config, over)
    if base_model is not None:
        config = merged(config, {"model": {"init_args": {"base_model": base_model}}})
    return replace(method, config=config)


def _run_missing(fits: list[Fit], jobs: int, what: str) -> dict[str, str]:
    """Run the fits that are not there, telling how far it is, and return what failed."""
    missing = [each for each in fits if not each.is_done()]
    terminal = console()
    terminal.print(f"{len(fits)} {what}, {len(fits) - len(missing)} of them done already", highlight=False)
    if missing:
        terminal.print(
            f"what each says: beside its folder, e.g. {missing[0].log}", soft_wrap=True, highlight=False
        )
    # What others are made from comes first
    waves = [[each for each in missing if bool(each.made_from) is last] for last in (False, True)]
    ended = (result for wave in waves if wave for result in run_fits(wave, jobs=jobs))
    failed, began = {}, time.monotonic()
    for done, (each, error) in enumerate(ended, start=1):
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
    return failed


def _table(comparison: dict[str, Any], level: str) -> Table:
    """Return one row a method: mean and 95 % interval of each figure at a level of adherence."""
    over = "tasks" if "tasks" in comparison else "seeds"
    # The rest is in comparison.md and .csv; a terminal has no room for it
    columns = [name for name in columns_of(comparison) if name not in ("spillover", "steps", "needs")]
    table = Table(
        Column("method", no_wrap=True),
        *(COLUMNS[name] for name in columns),
        title=f"at adherence {level}: mean +- half of the 95 % interval over {over}",
    )
    for method in comparison["levels"][level]:
        table.add_row(method, *(cell(comparison, level, method, name) for name in columns))
    return table
