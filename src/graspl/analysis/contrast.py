"""Runs against control runs, question by question."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graspl.analysis.intervals import paired, summarise
from graspl.analysis.runs import read_judged, trusted
from graspl.errors import GrasplError
from graspl.runs import RunFolder

Values = Mapping[str, Mapping[str, float]]  # One value for each question, by suite


def contrast(runs: Sequence[Path], controls: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Compare runs with controls, one folder for each seed, in every suite that all have, paired by question.

    Returns:
        By suite: means of `runs` and `controls`, the fields of a `Difference`, and `over_seeds`: a `Summary` of the seeds'
        differences; None unless there are as many controls as runs, two or more.

    Raises:
        GrasplError: a run has no values, or the two sides have no suite in common.
    """
    ours, theirs = ([question_values(run) for run in each] for each in (runs, controls))
    suites = _in_all([*ours, *theirs])
    if not suites:
        raise GrasplError("controls: no suite in common with the runs; evaluate both on the same suites")
    return {
        suite: _of_suite([run[suite] for run in ours], [run[suite] for run in theirs]) for suite in suites
    }


def question_values(run: Path) -> Values:
    """Return one value for each question of a run: that of choices, or how often the judged outcome came."""
    folder = RunFolder(run)
    items = folder.read_items() if trusted(folder, folder.items) else []
    judges = trusted(folder, folder.judgements, folder.judged, fix="judge again")
    judgements = folder.read_judgements() if judges else []
    judged = read_judged(folder) if judgements else {}
    for row in judgements:
        if row["suite"] not in judged:
            raise GrasplError(f"{folder.judged}: has no suite {row['suite']}; run: graspl judge {run}")
    found = values_by_question(items, judgements, judged)
    if not found:
        raise GrasplError(
            f"{run}: holds neither items.jsonl nor judgements.jsonl that can be trusted; run graspl validate"
        )
    return found


def values_by_question(
    items: Sequence[Mapping[str, Any]],
    judgements: Sequence[Mapping[str, Any]],
    judged: Mapping[str, Mapping[str, Any]],
) -> Values:
    """Return one value for each question, by suite.

    Args:
        items: rows of `items.jsonl`.
        judgements: rows of `judgements.jsonl`; those of suites that were not counted are left out.
        judged: the suites of `judged.json`.
    """
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in items:
        found[row["suite"]][row["item"]] = row["value"]
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in judgements:
        if row["suite"] in judged:
            hits[row["suite"], row["question"]].append(row["outcome"] == judged[row["suite"]]["of"])
    for (suite, question), each in hits.items():
        found[suite][question] = sum(each) / len(each)
    return found


def _in_all(every: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in every[0] if all(name in each for each in every)]


def _of_suite(ours: list[Mapping[str, float]], theirs: list[Mapping[str, float]]) -> dict[str, Any]:
    means = [means_by_question(side) for side in (ours, theirs)]
    over_seeds = None
    if len(ours) == len(theirs) > 1:
        seeds = [paired(a, b).value for a, b in zip(ours, theirs, strict=True)]
        over_seeds = summarise(seeds)._asdict()
    return {
        "runs": sum(means[0].values()) / len(means[0]),
        "controls": sum(means[1].values()) / len(means[1]),
        **paired(*means)._asdict(),
        "over_seeds": over_seeds,
    }


def means_by_question(every: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of several sets of values, over the questions that all have."""
    return {name: sum(each[name] for each in every) / len(every) for name in _in_all(every)}
