"""`graspl contrast`: runs against control runs, question by question."""

from pathlib import Path

from graspl import analysis
from graspl.reporting.tables import Shown, contrast_table
from graspl.runs import Lineage, RunFolder, write_json_atomic


def contrast(runs: list[Path], *, controls: list[Path], out: Path = Path("contrast.json")) -> Shown:
    """Give each suite's difference between runs and controls, paired by question, with its interval and p value.

    A control shows what any fine-tuning changes: compare a political suite with a neutral fine-tune, a method with the naive
    fit.

    Args:
        runs: folders that `graspl validate` (and, for questions, `graspl judge`) wrote into, one for each seed.
        controls: the same for the controls.
        out: file to write.

    Raises:
        GrasplError: a run has no values, or the two sides have no suite in common.
    """
    folders = [RunFolder(each) for each in (*runs, *controls)]
    made_from = {
        "items": [each.items for each in folders if each.items.exists()],
        "judgements": [
            place for each in folders for place in (each.judgements, each.judged) if place.exists()
        ],
    }
    lineage = Lineage(RunFolder(out.parent))
    lineage.remember(each for every in made_from.values() for each in every)
    suites = analysis.contrast(runs, controls)
    content = {"runs": [*map(str, runs)], "controls": [*map(str, controls)], "suites": suites}
    write_json_atomic(out, content)
    lineage.record([out], made_from)
    return Shown(content, [contrast_table(suites), f"contrast: {out}"])
