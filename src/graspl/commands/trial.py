"""What `graspl try` does: its steps, and its last lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from graspl.activations import NaturalDirections
from graspl.commands.identify import identify
from graspl.commands.report import report
from graspl.errors import GrasplError
from graspl.reporting.tables import Shown
from graspl.runs import DirectionsFiles, Lineage, RunFolder, read_json
from graspl.starts.trial import deciding
from graspl.studies.display import step_shown
from graspl.studies.trial import Trial, plan_trial
from graspl.studies.workers import Step, run_fits


def run_trial(base_model: str, train: str, *, text: str | None, out: Path, **options: Any) -> Shown:
    """Run the steps that are missing, check the directions, and write the report.

    Args:
        base_model: as in `graspl.commands.try_out.try_out`, with the options there.
        train: the rows to learn.
        text: unlabelled conversations, if any.
        out: folder of the runs and of the report.
        **options: of `plan_trial`.

    Raises:
        GrasplError: a step failed, or `out` holds fits with other settings.
    """
    disable_progress_bar()
    trial = plan_trial(base_model, train, text=text, out=out, **options)
    total = len(trial.steps) + 1
    for number, step in enumerate(trial.steps, start=1):
        run_step(number, total, step)
    trust = [_foreseen(trial)]
    with step_shown(total, total, "check the directions"):
        trust.append(_assumptions(trial, train, text))
    natural = DirectionsFiles(out / "natural.safetensors")
    shown = report(trial.runs, out=out, directions=[natural.path] if natural.assumptions.exists() else [])
    lines = [*(line for line in trust if line), _next(out)]
    return Shown(shown.content, [*shown.parts, *lines])


def run_step(number: int, total: int, step: Step) -> None:
    """Run one step in a process of its own and show how far it is, unless it is done.

    Args:
        number: of the step, from 1.
        total: number of steps.
        step: a fit or an evaluation.

    Raises:
        GrasplError: it failed.
    """
    if step.is_done():
        return
    with step_shown(number, total, step.name, step.log):
        [(_, failed)] = run_fits([step], jobs=1)
    if failed is not None:
        raise GrasplError(f"{step.name}: {failed}")


def is_sound(result: Path) -> bool:
    """Whether a result is there, and belongs to what it was made from."""
    return result.exists() and Lineage(RunFolder(result.parent)).complaint(result) is None


def _foreseen(trial: Trial) -> str | None:
    """Say what the fit foresaw of its null space."""
    run = RunFolder(trial.grasp)
    if not run.null_space.exists():
        return None
    kept: Mapping[str, Any] = read_json(run.null_space, "responses", "fit again")
    if "trial" in kept:
        tried = kept["trial"]["kept"]
        name = deciding(tried)
        what = (
            f"a short trial kept {tried[name]:.0%} of a naive fit's side effect on {name.replace('_', ' ')}"
        )
        return f"Foreseen before training: the null space is {kept['trial']['outlook']}: {what}."
    outlooks = {
        name: each["before training"]["outlook"]
        for name, each in kept.items()
        if name in ("text", "own_text") and isinstance(each, dict) and "before training" in each
    }
    told = "; ".join(f"{outlook} ({name.replace('_', ' ')})" for name, outlook in outlooks.items())
    return f"Foreseen before training: the null space is {told}." if told else None


def _assumptions(trial: Trial, train: str, text: str | None) -> str | None:
    """Say whether the factor can be told from the naive fit, and so whether to trust directions."""
    own, path = RunFolder(trial.grasp).own_text, trial.base.parent / "natural.safetensors"
    source = text or (str(own) if own.exists() else None)
    if source is None:
        return None
    files = DirectionsFiles(path)
    if not is_sound(files.assumptions):
        identify(trial.naive, method=NaturalDirections(text=source), rows=train, out=path)
    kept = files.read(files.assumptions)
    return f"Trust in the directions: {kept['verdict']}: {kept['reason']}." if kept else None


def _next(out: Path) -> str:
    return (
        f"Next: read {out / 'report.html'}. Then compare over seeds: graspl configs, and "
        "graspl compare --config configs/study.yaml"
    )
