"""`graspl contrast`: runs against control runs, question by question."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.intervals import paired
from graspl.runs import RunFolder, write_json_atomic
from graspl.studies.statistics import summarise


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl contrast`."""
    parser.add_argument("--runs", type=list[Path], required=True, help="evaluated runs, one a seed")
    parser.add_argument(
        "--controls", type=list[Path], required=True, help="evaluated runs to compare with, one a seed"
    )
    parser.add_argument("--out", type=Path, default=Path("contrast.json"), help="file to write")


def contrast(runs: list[Path], controls: list[Path], out: Path = Path("contrast.json")) -> dict[str, Any]:
    """Give every suite's difference between runs and controls, paired by question, with its interval and p.

    A control tells what any fine-tuning moves: a political suite is read against a neutral fine-tune, a method against the
    naive one.

    Args:
        runs: folders that `graspl validate` (and, for questions, `graspl judge`) wrote into, one a seed.
        controls: the same.
        out: file to write.

    Raises:
        GrasplError: a run has no items, or the two have no suite in common.
    """
    if not runs or not controls:
        raise GrasplError("runs, controls: give at least one of each")
    ours, theirs = ([_values(run) for run in each] for each in (runs, controls))
    suites = [suite for suite in _suites(ours) if suite in _suites(theirs)]
    if not suites:
        raise GrasplError(
            f"controls: have no suite in common with {', '.join(map(str, runs))}; evaluate both on the same"
        )
    found = {suite: _suite(suite, ours, theirs) for suite in suites}
    write_json_atomic(out, {"runs": [*map(str, runs)], "controls": [*map(str, controls)], "suites": found})
    terminal = console()
    terminal.print(_table(found))
    terminal.print(f"contrast: {out}", soft_wrap=True, highlight=False, markup=False)
    return found


def _values(run: Path) -> dict[str, dict[str, float]]:
    """Return one value a question, by suite: that of choices, or how often the judged outcome came."""
    folder = RunFolder(run)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in folder.read_items():
        found[row["suite"]][row["item"]] = row["value"]
    answers: dict[tuple[str, str], list[float]] = defaultdict(list)
    judgements = folder.read_judgements()
    judged = folder.read_judged()["suites"] if judgements else {}
    for row in judgements:
        answers[row["suite"], row["question"]].append(float(row["outcome"] == judged[row["suite"]]["of"]))
    for (suite, question), hits in answers.items():
        found[suite][question] = sum(hits) / len(hits)
    if not found:
        raise GrasplError(
            f"{run}: holds neither items.jsonl nor judgements.jsonl; run graspl validate, then graspl judge"
        )
    return found


def _suites(every: list[dict[str, dict[str, float]]]) -> list[str]:
    """Return the suites that all runs have."""
    return [suite for suite in every[0] if all(suite in each for each in every)]


def _suite(suite: str, ours: list[Any], theirs: list[Any]) -> dict[str, Any]:
    means = [_mean_by_question([each[suite] for each in side]) for side in (ours, theirs)]
    difference = paired(means[0], means[1])
    found = {
        "runs": sum(means[0].values()) / len(means[0]),
        "controls": sum(means[1].values()) / len(means[1]),
        **difference._asdict(),
        "over_seeds": None,
    }
    if len(ours) == len(theirs) > 1:
        seeds = [paired(a[suite], b[suite]).value for a, b in zip(ours, theirs, strict=True)]
        found["over_seeds"] = summarise(seeds)._asdict()
    return found


def _mean_by_question(every: list[dict[str, float]]) -> dict[Any, float]:
    """Return each question's mean over seeds, of the questions that all have."""
    common = [name for name in every[0] if all(name in each for each in every)]
    return {name: sum(each[name] for each in every) / len(every) for name in common}


def _table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(
        "suite", "runs", "controls", "difference (95 % over questions)", "p", "questions", "95 % over seeds"
    )
    for suite, each in found.items():
        seeds = each["over_seeds"]
        table.add_row(
            suite,
            f"{each['runs']:.4f}",
            f"{each['controls']:.4f}",
            f"{each['value']:+.4f} ({each['low']:+.4f} to {each['high']:+.4f})",
            f"{each['p']:.4f}",
            str(each["n"]),
            f"{seeds['low']:+.4f} to {seeds['high']:+.4f}" if seeds else "-",
        )
    return table
