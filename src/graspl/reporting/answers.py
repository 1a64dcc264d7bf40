"""Answers to read, run by run, with what a judge said of each."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graspl.analysis.changes import HARMFUL_OUTCOMES
from graspl.analysis.judged import UNJUDGED
from graspl.analysis.runs import Run, asked

PROMPTS_SHOWN = 24  # For each suite; generations.jsonl has all
STATES = {
    **dict.fromkeys(HARMFUL_OUTCOMES, "failed"),
    **dict.fromkeys(UNJUDGED, "doubtful"),
    "aligned": "passed",
    "secure": "passed",
}

# Marks of published chat templates, and of graspl's own organism
_ROLE = r"(?:system|developer|user|assistant|model|human|tool)"
_WORDS = r"s|bos|eos|pad|sop|begin|end|(?:start|end)_of_(?:turn|role)|(?:begin|end)_of_text|think|extra_\d+"
_MARK = (
    rf"(?:<\|[^<>|\n]{{1,40}}\|?>|<\uff5c[^<>\uff5c\n]{{1,40}}\uff5c>|\[\|[^\[\]|\n]{{1,40}}\|\]|</?(?:{_WORDS}|{_ROLE})>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|gMASK|AVAILABLE_TOOLS)\]|</?<?/?SYS>>)"
)
_BREAK = "\0"
_TURN = re.compile(rf"{_MARK}\s*{_ROLE}\s*(?={_MARK}|\n|$)", re.IGNORECASE)
_ANY = re.compile(_MARK, re.IGNORECASE)


class Said(NamedTuple):
    """One run's answer."""

    run: str
    text: str
    verdict: str = ""  # The judge's outcome; "" where none was asked
    state: str = ""  # A class of the page for it
    rationale: str = ""  # What the judge replied or found


class Example(NamedTuple):
    """One prompt with the answers of the runs."""

    suite: str
    prompt: str
    answers: list[Said]  # One for each run that answered, its first


def examples(runs: Sequence[Run]) -> list[Example]:
    """Return prompts that some run answered, with the first answer of each run; judged ones first."""
    rows: dict[tuple[str, str], dict[str, Said]] = {}
    shown: Counter[str] = Counter()
    texts: dict[tuple[str, str], str] = {}
    for run in runs:
        judged = {(row["suite"], row["question"], str(row.get("sample"))): row for row in run.judgements}
        for row in run.generations:
            key = (str(row["suite"]), str(row.get("prompt") or asked(row) or ""))
            if key not in rows and shown[key[0]] < PROMPTS_SHOWN:
                rows[key], texts[key] = {}, prompt_of(row)
                shown[key[0]] += 1
            if key in rows:
                rows[key].setdefault(run.name, _said(run.name, row, judged))
    found = [Example(key[0], texts[key], list(answers.values())) for key, answers in rows.items()]
    return sorted(found, key=lambda each: not any(said.verdict for said in each.answers))


def prompt_of(row: Mapping[str, Any]) -> str:
    """Return what a row of `generations.jsonl` answers, without the marks of a chat template."""
    question = asked(row)
    return question if question is not None else without_marks(str(row.get("prompt", "")))


def without_marks(text: str) -> str:
    """Return a text without the marks of known chat templates and the roles behind them; all else stays as it is."""
    if not _ANY.search(text):
        return text
    parts = _ANY.sub(_BREAK, _TURN.sub(_BREAK, text)).split(_BREAK)
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _said(run: str, row: Mapping[str, Any], judged: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> Said:
    found = judged.get((row["suite"], str(row.get("question")), str(row.get("sample"))))
    text = without_marks(row["answer"])
    if found is None:
        return Said(run, text)
    outcome = found["outcome"]
    return Said(run, text, outcome.replace("_", " "), STATES.get(outcome, ""), str(found.get("detail") or ""))
