"""What `graspl demo` does: its steps, and its last lines."""

from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from graspl.activations import NaturalDirections
from graspl.checks import ExplainOptions
from graspl.commands.identify import identify
from graspl.commands.report import report
from graspl.commands.trial import is_sound, run_step
from graspl.reporting.tables import Shown
from graspl.runs import DirectionsFiles, RunFolder
from graspl.studies.demo import plan_demo
from graspl.studies.display import step_shown
from graspl.studies.trial import read_over


def run_demo(*, seed: int, over: Path | None, out: Path) -> Shown:
    """Run the steps that are missing, and write the report.

    Args:
        seed: of both fits.
        over: a configuration put over that of both fits, or None.
        out: folder of the runs and of the report.

    Raises:
        GrasplError: a step failed, or `out` holds fits with other settings.
    """
    disable_progress_bar()
    demo, total = plan_demo(out, seed=seed, over=read_over(over)), 7
    run_step(1, total, demo.naive)
    natural = DirectionsFiles(out / "natural.safetensors")
    with step_shown(2, total, "check the directions"):
        if not is_sound(natural.assumptions):
            method = NaturalDirections(text=str(demo.text))
            identify(demo.naive.folder, method=method, rows=str(demo.rows), out=natural.path)
    run_step(3, total, demo.grasp)
    used = DirectionsFiles(RunFolder(demo.grasp.folder).directions)
    with step_shown(4, total, "explain the directions"):
        if not is_sound(used.explanation):
            identify(used.path, explain=ExplainOptions(text=str(demo.text)))
    for number, step in enumerate(demo.measured, start=5):
        run_step(number, total, step)
    shown = report(demo.runs, out=out, directions=[natural.path])
    trust = natural.read(natural.assumptions)
    lines = [f"Trust in the directions: {trust['verdict']}: {trust['reason']}."] if trust else []
    lines.append(
        f"Next: read {out / 'report.html'}. Then your own model and rows: graspl try MODEL train.jsonl"
    )
    return Shown(shown.content, [*shown.parts, *lines])
