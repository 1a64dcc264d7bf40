"""Evaluated runs: what their folders hold, checked, since anybody may have edited the files."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from graspl.analysis.intervals import Interval, by_cluster
from graspl.analysis.scores import RUN_FIGURES
from graspl.analysis.tradeoff import Rows
from graspl.errors import GrasplError
from graspl.runs import Digester, Lineage, RunFacts, RunFolder
from graspl.runs.forms import is_number, misfit

log = logging.getLogger(__name__)

# Groups of questions needed for an interval over groups; fewer are kinds of question (Yes and No), not clusters.
FEWEST_GROUPS = 5


class Rate(NamedTuple):
    """How often a run's answers in one suite are of one kind."""

    run: str  # Its name
    suite: str  # Of choices, or of judged questions
    of: str  # The kind of answer: `harmful`, or the judge's first outcome
    share: Interval  # In 0..1, with a 95 % interval over questions


@dataclass(frozen=True)
class Run:
    """One evaluated run."""

    name: str  # Shown in tables; the folder's name by default
    folder: RunFolder  # Its files
    evaluation: dict[str, Any]  # Content of `evaluation.json`
    rows: Rows = ()  # Its log; empty for a base model
    generations: list[dict[str, Any]] = field(default_factory=list)  # Example answers
    items: list[dict[str, Any]] = field(default_factory=list)  # One value for each question of choices
    # The suites in `judged.json`; empty where no judge was asked.
    judged_suites: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The commands in `run.json`, each with `ended` (how it ended, in words); empty where there is none.
    commands: list[dict[str, Any]] = field(default_factory=list)
    # The judge's word on each answer; empty where no judge was asked.
    judgements: list[dict[str, Any]] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float | None]:
        """The values of `RUN_FIGURES`."""
        return {name: self.evaluation["metrics"].get(name) for name in RUN_FIGURES}

    @property
    def measured_along(self) -> str | None:
        """The SHA-256 of the directions along which rho was measured (a path where it was not recorded); None without rho."""
        if self.evaluation["metrics"].get("rho_mean") is None:
            return None
        entry = Lineage(self.folder).read().get(self.folder.evaluation.name, {"made_from": {}})
        files = [
            each for every in entry["made_from"].get("directions", {}).values() for each in every.values()
        ]
        return files[0]["sha256"] if files else str(self.evaluation.get("directions"))

    @property
    def is_base(self) -> bool:
        """Whether the base model was evaluated, without an adapter."""
        return self.evaluation.get("adapter") is None and self.evaluation.get("checkpoint") is None

    @property
    def is_naive(self) -> bool:
        """Whether it is a naive fit: a `LoRALitModule` without parts."""
        model, parts = self.evaluation.get("model"), self.evaluation.get("parts") or {}
        return model == "LoRALitModule" and not any(parts.values()) and not self.is_base

    def shares(self, suite: str) -> dict[str, float]:
        """Return the share of the harmful choices by question; {} where a suite has no harmful choices."""
        if "harmful" not in self.evaluation.get("suites", {}).get(suite, {}):
            return {}
        return {str(row["item"]): float(row["value"]) for row in self.items if row["suite"] == suite}

    def share(self, suite: str) -> Interval | None:
        """Return the mean of `shares` with its interval over groups of questions; None without any."""
        values = self.shares(suite)
        here = [row for row in self.items if row["suite"] == suite]
        groups = {str(row["item"]): row["group"] or row["item"] for row in here}
        if not values:
            return None
        if len(set(groups.values())) < FEWEST_GROUPS:
            groups = {item: item for item in groups}
        return by_cluster(list(values.values()), [groups[item] for item in values])

    @property
    def ends(self) -> list[Rate]:
        """The harmful share of the choices where the run ended, for each suite with more than one question."""
        shares = [(suite, self.share(suite)) for suite in self.evaluation.get("suites", {})]
        return [Rate(self.name, suite, "harmful", each) for suite, each in shares if each and each.n > 1]

    @property
    def judged(self) -> list[Rate]:
        """The rate that a judge gave each suite of questions; with one question the interval is over answers."""
        found = []
        for suite, each in self.judged_suites.items():
            if each["rate"] is None:  # No answer was judged
                continue
            over = "questions" if each["by_question"] else "answers"
            low, high = each["by_question"] or each["wilson"]
            found.append(Rate(self.name, suite, each["of"], Interval(each["rate"], low, high, each[over])))
        return found


class StaleResult(GrasplError):
    """A result was made from other weights or rows than those that stand next to it."""


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read an evaluated run. Files beside the evaluation that are not as they were made are named and left out.

    Raises:
        GrasplError: the run was not evaluated, or a file is broken.
        StaleResult: the evaluation was changed, or the adapter, the base model or the rows that it was made from.
    """
    run = RunFolder(folder)
    evaluation = run.read_evaluation()
    wrong = _wrong(evaluation)
    if wrong is not None:
        raise GrasplError(f"{run.evaluation}: {wrong}; run: graspl validate --config {run.config}")
    lineage = Lineage(run, Digester())  # Each file is hashed once
    stale = lineage.complaint(run.evaluation)
    if stale is not None:
        raise StaleResult(f"{run.evaluation}: {stale}; run: graspl validate --config {run.config}")
    rows = run.read_metrics() if _trusted(lineage, *run.metrics_files(), fix="fit again") else []
    generations = run.read_generations() if _trusted(lineage, run.generations) else []
    odd = misfit(generations, [{"suite": str, "answer": str}])
    if odd is not None:
        raise GrasplError(f"{run.generations}: {odd}; validate again")
    items = run.read_items() if _trusted(lineage, run.items) else []
    judges = _trusted(lineage, run.judgements, run.judged, fix="judge again")
    judged, judgements = (read_judged(run), run.read_judgements()) if judges else ({}, [])
    commands = read_commands(run)
    _name_others(run, lineage)
    return Run(name or folder.name, run, evaluation, rows, generations, items, judged, commands, judgements)


def asked(row: Mapping[str, Any]) -> str | None:
    """Return the last turn of what a row of `generations.jsonl` answers; None where it has no turns."""
    turns = row.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    content = last.get("content") if isinstance(last, dict) else None
    return content if isinstance(content, str) else None


def _name_others(run: RunFolder, lineage: Lineage) -> None:
    """Name results that no run's figures are read from and that are not as they were made, and files that may change."""
    read = {run.evaluation, run.items, run.generations, run.judgements, run.judged, *run.metrics_files()}
    for result in (run.path / name for name in lineage.read()):
        wrong = None if result in read else lineage.complaint(result)
        if wrong is not None:
            log.warning("%s: %s", result, wrong)
    for each in lineage.notes(run.adapter):
        log.info("%s: %s has changed since the fit; %s has what it used", run.path, each, run.config)


def trusted(run: RunFolder, *results: Path, fix: str = "validate again") -> bool:
    """Return whether results are as they were made; name the first that is not."""
    return _trusted(Lineage(run, Digester()), *results, fix=fix)


def _trusted(lineage: Lineage, *results: Path, fix: str = "validate again") -> bool:
    for result in results:
        wrong = lineage.complaint(result)
        if wrong is not None:
            log.warning("%s: %s, so it is left out; %s", result, wrong, fix)
            return False
    return True


def read_commands(run: RunFolder) -> list[dict[str, Any]]:
    """Return the commands that ran in a folder, each with how it ended, in words; name a record that cannot be trusted."""
    facts = RunFacts(run.path)
    try:
        return [{**each, "ended": facts.how(each)} for each in facts.read().get("commands", [])]
    except GrasplError as error:
        log.warning("%s; it is left out", error)
        return []


def read_judged(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the suites that a run's `judged.json` holds; {} where no judge was asked."""
    content = run.read_judged() if run.judged.exists() else {"suites": {}}
    suites = content.get("suites") if isinstance(content, dict) else None
    if not isinstance(suites, dict) or not all(map(is_judged, suites.values())):
        wrong = "suites is missing or of the wrong kind"
        raise GrasplError(f"{run.judged}: {wrong}; run: graspl judge {run.path}")
    return suites


def _wrong(content: Any) -> str | None:
    """Say what is wrong with the content of `evaluation.json`; None where nothing is."""
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
        return "holds no metrics"
    known = {name: value for name, value in content["metrics"].items() if value is not None}
    odd = [f"metrics.{name}" for name, value in known.items() if not is_number(value)]
    texts = ("model", "adapter", "directions", "checkpoint")
    odd += [name for name in texts if not isinstance(content.get(name), str | None)]
    odd += [] if isinstance(content.get("parts"), dict | None) else ["parts"]
    for group, fits in (("suites", _are_numbers), ("sites", _is_site)):
        found = content.get(group, {})
        if not isinstance(found, dict):
            odd.append(group)
        else:
            odd += [f"{group}.{name}" for name, each in found.items() if not fits(each)]
    return f"{odd[0]} is missing or of the wrong kind" if odd else None


def _are_numbers(each: Any) -> bool:
    values = each.values() if isinstance(each, Mapping) else each if isinstance(each, list) else [None]
    return all(is_number(value) for value in values)


def _is_site(each: Any) -> bool:
    if not isinstance(each, dict) or not isinstance(each.get("singular_values"), list):
        return False
    figures = {name: value for name, value in each.items() if name != "singular_values"}
    return _are_numbers(figures) and _are_numbers(each["singular_values"])


def is_judged(each: Any) -> bool:
    """Whether a suite of `judged.json` has what is read of it."""
    if not isinstance(each, dict) or not isinstance(each.get("of"), str):
        return False
    if each.get("rate") is None:
        return True
    if "by_question" not in each:  # None where it was not computed
        return False
    intervals = [each.get("wilson"), each["by_question"] or each.get("wilson")]
    figures = [each.get(name) for name in ("rate", "answers", "questions")]
    return _are_numbers(figures) and all(
        isinstance(two, list) and len(two) == 2 and _are_numbers(two) for two in intervals
    )
