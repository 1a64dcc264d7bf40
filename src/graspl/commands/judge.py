"""`graspl judge`: what the answers that a run wrote are worth."""

import logging
from collections import Counter
from pathlib import Path

from graspl.errors import GrasplError
from graspl.evaluation.judges import Judge, LocalBackend
from graspl.evaluation.judging import judge_rows, rates_of
from graspl.reporting.tables import Shown, rates_table
from graspl.runs import Lineage, RunFacts, RunFolder, given, write_json_atomic, write_json_lines_atomic

log = logging.getLogger(__name__)


def judge(run: Path, *, judges: dict[str, Judge]) -> Shown:
    """Judge a run's answers; write `judgements.jsonl` (each answer) and `judged.json` (rates with 95 % intervals).

    An interruption loses no reply of a backend with a cache: run the same command again.

    Args:
        run: folder with `generations.jsonl`, which `graspl validate` wrote.
        judges: who judges, by suite; `*` judges the others. configs/judges has examples.

    Raises:
        GrasplError: the run has no answers, or a judge cannot be asked.
    """
    folder = RunFolder(run)
    if not folder.generations.exists():
        return _judged(folder, judges)  # It says what is missing, and leaves nothing where no run is
    with RunFacts(run).command("judge"):
        return _judged(folder, judges)


def _judged(folder: RunFolder, judges: dict[str, Judge]) -> Shown:
    lineage = Lineage(folder)
    lineage.remember([folder.generations, *_made_from(judges)["judging model"]])
    wrong = lineage.complaint(folder.generations) if folder.generations.name in lineage.read() else None
    if wrong is not None:
        raise GrasplError(f"{folder.generations}: {wrong}; run: graspl validate --config {folder.config}")
    rows = folder.read_generations()
    if not rows:
        fix = "run graspl validate with suites of questions first"
        raise GrasplError(f"{folder.generations}: holds no answers; {fix}")
    judged = judge_rows(rows, judges)
    suites = rates_of(judged, judges)
    if all(each["rate"] is None for each in suites.values()):
        outcomes = Counter(row["outcome"] for row in judged)
        told = ", ".join(f"{name} {count}" for name, count in outcomes.items())
        fix = "look at the judging model's replies: it must reply with a grade alone"
        raise GrasplError(f"judges: no answer got a verdict ({told}), so nothing was measured; {fix}")
    usage = {name: each.usage() for name, each in judges.items() if each.usage()}
    content = {"suites": suites, "usage": usage}
    with lineage.writing(
        [folder.judgements, folder.judged], {"answers": [folder.generations]} | _made_from(judges)
    ):
        write_json_lines_atomic(folder.judgements, judged)
        write_json_atomic(folder.judged, content)
    failed = sum(each["counts"].get("failed", 0) for each in suites.values())
    if failed:
        log.warning("judges: %d answers were not judged; run the same command again for only these", failed)
    told = [
        f"{name}: " + ", ".join(f"{what.replace('_', ' ')} {count:g}" for what, count in each.items())
        for name, each in usage.items()
    ]
    return Shown(content, [rates_table(suites), *told, f"judgements: {folder.judgements}"])


def _made_from(judges: dict[str, Judge]) -> dict[str, list[str]]:
    """Return the models on this machine that judge, and the files that the options name, as those of rubrics."""
    backends = [getattr(each, "backend", None) for each in judges.values()]
    command = given()
    return {
        "judging model": [each.model for each in backends if isinstance(each, LocalBackend)],
        "file": [] if command is None else [*command.files],
    }
