"""`graspl compare`: methods by seeds, with intervals."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from graspl.analysis.fits import Measured
from graspl.analysis.scores import LEVELS
from graspl.analysis.sound import complaint_about, files_of
from graspl.analysis.study import comparison_of
from graspl.analysis.study_verdict import study_verdict
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt
from graspl.reporting.figures import svg_of
from graspl.reporting.markdown import as_csv, as_markdown, judged_lines
from graspl.reporting.page import render_sheet
from graspl.reporting.study_sheet import study_sheet
from graspl.reporting.tables import Shown, study_tables
from graspl.runs import (
    Digester,
    Lineage,
    RunFacts,
    RunFolder,
    write_json_atomic,
    write_text_atomic,
)
from graspl.studies.claims import alone
from graspl.studies.cluster import Ray, ray_engine
from graspl.studies.methods import Method, configs_of, merged
from graspl.studies.parts import Part, Study, run_part
from graspl.studies.plan import Fit, plan_fits
from graspl.studies.tuning import Tuning, plan_trials, tune
from graspl.studies.workers import Engine, Processes, run_missing

log = logging.getLogger(__name__)


def compare(
    *,
    fit: Path,
    methods: dict,  # type: ignore[type-arg] - with parameters jsonargparse would build the class paths within
    more_methods: dict = {},  # type: ignore[type-arg]  # noqa: B006 - never changed
    tasks: dict = {},  # type: ignore[type-arg]  # noqa: B006 - never changed
    shared: dict = {},  # type: ignore[type-arg]  # noqa: B006 - never changed
    over: dict = {},  # type: ignore[type-arg]  # noqa: B006 - never changed
    base_model: str | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    baseline: str = "naive",
    norm_baseline: str | None = None,
    reference: str | None = None,
    tuning: Tuning | None = None,
    levels: Sequence[float] = LEVELS,
    levels_of: Literal["adherence", "baseline"] = "adherence",
    measured: Measured = Measured(),  # noqa: B008 - never changed
    kept: Path | None = None,
    jobs: PositiveInt = 1,
    engine: Literal["processes", "ray"] = "processes",
    ray: Ray = Ray(),  # noqa: B008 - never changed
    part: str | None = None,
    fast: bool = False,
    fast_methods: Sequence[str] = (),
    fast_seeds: Sequence[int] = (0, 1),
    out: Path = Path("runs/compare"),
) -> Shown:
    """Run the fits that are missing, then write `comparison.json`, `.csv`, `.md`, `.svg`, `.html` and `tuning.json`.

    In a configuration, {seed} stands for the fit's seed, {task} for the name of its task, and {fit:NAME} for the folder of
    another method's fit with the same seed, on the same task.

    Args:
        fit: configuration that all fits share: data and trainer.
        methods: by name, what each method adds: `model` (a method file, or a mapping) and other parts of the configuration.
            Beside them `set` (values by dotted key), `tune` (values to choose from by dotted key), `development` (put over it
            in trials) and `needs` (data beyond the task's rows, in words).
        more_methods: added to `methods`, for a configuration laid over another.
        tasks: by name, put over every method: the task's data and base model; one task where empty.
        shared: put under every method's configuration.
        over: put over every method's configuration, e.g. {"data": {"init_args": {"train": "mine.jsonl"}}}.
        base_model: of every method; as configured where None.
        seeds: of the fits.
        baseline: the method that the others are compared with.
        norm_baseline: a naive method that trains for long, read at equal norm of the update; the baseline where None.
        reference: the method that the verdict compares the others with.
        tuning: trials, seeds and development data, to choose settings for the methods with `tune`.
        levels: of adherence, where methods are compared.
        levels_of: `adherence`, or `baseline`: levels are then shares of the baseline's gain over the base model, for tasks
            where nobody knows which adherence to expect.
        measured: which scores stand for adherence and spill-over, and which others are compared.
        kept: a folder with one small record a fit, `<kept>/<task>/<method>_<seed>.json`. A fit with a record is not run
            again, so that a study can be continued on another machine.
        jobs: fits at a time, each in its own process and, where there are several, on GPUs of its own.
        engine: what runs the fits: `processes` of this machine, or `ray`, on this machine or many; the nodes must share the
            study's folder.
        ray: the cluster, and what each fit gets of it.
        part: run only this part of the fits, e.g. 3/8, beside processes that run the others, and make no table. The same
            command without it makes the table.
        fast: run only fast_methods and fast_seeds, without tuning.
        fast_methods: methods that `fast` runs; all where empty.
        fast_seeds: seeds that `fast` runs.
        out: the study's folder; a fit is in `<out>/<method>/seed_<seed>`, with tasks `<out>/<task>/<method>/seed_<seed>`.

    Raises:
        GrasplError: the plan is impossible, another process runs the study, or every fit failed.
    """
    methods, mine = {**methods, **more_methods}, _part(part, engine)
    if not levels:
        raise GrasplError("levels: names none; give at least one level of adherence")
    if fast:
        methods, seeds, tuning = _fast(methods, fast_methods), fast_seeds, None
        norm_baseline, reference = (name if name in methods else None for name in (norm_baseline, reference))
    _require({"baseline": baseline, "norm_baseline": norm_baseline, "reference": reference}, methods)
    if base_model is not None:
        over = merged(over, {"model": {"init_args": {"base_model": base_model}}})
    known = {name: Method.parse(name, given, shared, over) for name, given in methods.items()}
    relative_to = baseline if levels_of == "baseline" else None
    plan = partial(plan_fits, fit, seeds=seeds, out=out, tasks=tasks, kept=kept)
    plan(configs_of(known, {}))  # find mistakes before anything runs
    trials = [] if tuning is None else plan_trials(fit, known, tuning, seeds, out, baseline=relative_to)
    if mine is not None:
        study = Study(out, known, trials, levels, relative_to, plan, seeds)
        return _shown_part(run_part(mine, study, jobs))
    # From here on fits are removed and begun again: two processes would remove what the other is writing
    with (
        alone(out),
        RunFacts(out).command("compare", [*seeds]),
        _running_on(engine, jobs, ray, out) as runner,
    ):
        chosen, failed = {}, {}
        if tuning is not None:
            chosen, failed = tune(trials, levels, relative_to, runner, out)
            Lineage(RunFolder(out)).record(
                [RunFolder(out).tuning], _read_of([each for trial in trials for each in trial.fits])
            )
        fits = plan(configs_of(known, chosen))
        failed |= run_missing(fits, runner, "fits")
        failed |= _unsound([each for each in fits if each.name not in failed])
        done = _done(fits, failed)
        found = comparison_of(
            done,
            baseline,
            levels,
            norm_baseline,
            reference,
            relative=relative_to is not None,
            measured=measured,
        )
        found |= {"failed": failed, "fit": str(fit), "seeds": [*seeds], "tuned": chosen}
        found["needs"] = {name: each.needs for name, each in known.items() if each.needs}
        found["verdict"] = study_verdict(found)
        return _written(found, out, done, measured)


def _part(text: str | None, engine: str) -> Part | None:
    if text is not None and engine == "ray":
        raise GrasplError("part: Ray shares the fits out by itself; leave out --part or --engine ray")
    return None if text is None else Part.parse(text)


@contextmanager
def _running_on(engine: str, jobs: int, ray: Ray, out: Path) -> Iterator[Engine]:
    if engine == "processes":
        yield Processes(jobs)
        return
    if jobs != 1:
        log.warning("jobs: has no effect with Ray, which runs as many fits as the cluster has room for")
    with ray_engine(ray, out) as tasks:
        yield tasks


def _shown_part(found: dict[str, Any]) -> Shown:
    """Say how far the study is, and what comes next."""
    if found["of"] == "trials":
        then = "run every part again for the fits, once all trials are done"
    else:
        then = "run the same command without --part for the table, once all are done"
    failed = [f"failed: {name}: {why}" for name, why in found["failed"].items()]
    state = f"part {found['part']}: {found['done']} of {found['total']} {found['of']} of the study are done"
    return Shown(found, [*failed, f"{state}; {then}"])


def _fast(methods: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        _require({"fast_methods": name}, methods)
    return {name: methods[name] for name in names or methods}


def _done(fits: Sequence[Fit], failed: dict[str, str]) -> list[Fit]:
    done = [each for each in fits if each.name not in failed]
    if not done:
        raise GrasplError(f"methods: every fit failed, e.g. {fits[0].name}: {failed[fits[0].name]}")
    return done


def _unsound(fits: Sequence[Fit]) -> dict[str, str]:
    """Return, by name, why the figures of a fit cannot be trusted; such fits are left out."""
    hashing = Digester()
    found = {each.name: complaint_about(each, hashing) for each in fits}
    return {name: why for name, why in found.items() if why is not None}


def _read_of(fits: Sequence[Fit]) -> dict[str, list[Path]]:
    """Return what a study's figures are made from."""
    return {"fit": list(dict.fromkeys(file for each in fits for file in files_of(each)))}


def _require(named: dict[str, str | None], methods: dict[str, Any]) -> None:
    for option, name in named.items():
        if name is not None and name not in methods:
            raise GrasplError(f"{option}: {name} is not among the methods ({', '.join(methods)})")


def _written(found: dict[str, Any], out: Path, fits: Sequence[Fit], measured: Measured) -> Shown:
    files = [
        RunFolder(out).comparison.with_suffix(suffix) for suffix in (".json", ".csv", ".md", ".svg", ".html")
    ]
    sheet = study_sheet(found, fits, measured, out)
    with Lineage(RunFolder(out)).writing(files, _read_of(fits)):
        write_json_atomic(files[0], found)
        write_text_atomic(files[1], as_csv(found))
        write_text_atomic(files[2], as_markdown(found))
        write_text_atomic(files[3], svg_of(sheet.tradeoff, width=7.5, height=5.5))
        write_text_atomic(files[4], render_sheet(sheet))
    lines = [f"judged: {line}" for line in judged_lines(found)] + found["verdict"]
    lines += [f"failed: {name}: {why}" for name, why in found["failed"].items()]
    return Shown(found, [*study_tables(found), *lines, f"comparison: {files[0]}", f"report: {files[4]}"])
