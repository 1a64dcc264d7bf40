"""`graspl judge`: what the answers that a run wrote are worth."""

import logging
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.evaluation.judges import Judge
from graspl.evaluation.judging import EVERY, judge_rows, rates
from graspl.runs import RunFolder, write_json_atomic, write_json_lines_atomic

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl judge`."""
    parser.add_argument("run", type=Path, help="folder with generations.jsonl, which graspl validate wrote")
    about = "by suite, or * for the others: who judges; configs/judges has examples"
    parser.add_argument("--judges", type=dict[str, Judge], required=True, help=about)


def judge(run: Path, judges: dict[str, Judge]) -> dict[str, Any]:
    """Judge a run's answers; writes `judgements.jsonl` (each answer) and `judged.json` (rates with 95 % intervals).

    An interruption loses nothing that a backend with a cache was told: run the same command again.

    Args:
        run: folder with `generations.jsonl`.
        judges: by suite; `*` judges the others.

    Raises:
        GrasplError: the run has no answers, or a judge cannot be asked.
    """
    folder = RunFolder(run)
    rows = folder.read_generations()
    if not rows:
        raise GrasplError(
            f"{folder.generations}: no answers there; run graspl validate with suites of questions first"
        )
    judged = judge_rows(rows, judges)
    suites = list(dict.fromkeys(row["suite"] for row in judged))
    found = {
        suite: _of_suite([row for row in judged if row["suite"] == suite], _judge_of(suite, judges))
        for suite in suites
    }
    usage = {name: each.usage() for name, each in judges.items() if each.usage()}
    write_json_lines_atomic(folder.judgements, judged)
    write_json_atomic(folder.judged, {"suites": found, "usage": usage})
    terminal = console()
    terminal.print(_table(found))
    for name, each in usage.items():
        told = ", ".join(f"{what.replace('_', ' ')} {count:g}" for what, count in each.items())
        terminal.print(f"{name}: {told}", highlight=False, markup=False)
    terminal.print(f"judgements: {folder.judgements}", soft_wrap=True, highlight=False, markup=False)
    failed = sum(each["counts"].get("failed", 0) for each in found.values())
    if failed:
        log.warning(
            "judges: %d answers could not be judged; run the same command again to ask for these only", failed
        )
    return found


def _judge_of(suite: str, judges: dict[str, Judge]) -> Judge:
    return judges.get(suite) or judges[EVERY]


def _of_suite(rows: list[dict[str, Any]], judge: Judge) -> dict[str, Any]:
    groups = sorted({row["group"] for row in rows})
    by_group = {name: rates([row for row in rows if row["group"] == name], judge) for name in groups}
    return {**rates(rows, judge), "groups": by_group if len(groups) > 1 else {}}


def _table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(
        "suite", "group", "answers", "outcome", "rate", "by question", "of those with a verdict", "others"
    )
    for suite, every in found.items():
        for group, each in [("all", every), *every["groups"].items()]:
            settled = each["of_settled"]
            others = ", ".join(
                f"{name} {n}" for name, n in each["counts"].items() if n and name != each["of"]
            )
            table.add_row(
                suite,
                group,
                str(each["answers"]),
                each["of"],
                f"{each['rate']:.2%} ({each['wilson'][0]:.2%} to {each['wilson'][1]:.2%})",
                f"{each['by_question'][0]:.2%} to {each['by_question'][1]:.2%}"
                if each["by_question"]
                else "-",
                f"{settled['rate']:.2%} of {settled['n']}" if settled else "-",
                others,
            )
    return table
