"""What a run's folder tells about its adapter, for a model card."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from graspl.analysis.figures import Figure, figures_of
from graspl.analysis.runs import Rate, StaleResult, read_run
from graspl.errors import foreign
from graspl.runs import Lineage, RunFacts, RunFolder, parse_yaml
from graspl.runs.given import hidden

KINDS = ("start", "constraints", "penalties", "edits", "transforms")  # Options that name parts of a method
FOUR_BITS = [
    "The fit saw the base model in four bits (NF4), and was measured on it; here the base model is as it is stored."
]
MADE_BY = ("fit", "identify", "validate", "judge")  # Commands that make what a card tells


class FitFacts(NamedTuple):
    """What is known of a fit; everything is empty for an adapter that graspl did not train."""

    method: str  # Class of the module, e.g. `GRASPLitModule`
    data: str  # Class of the data, e.g. `ChatDataModule`
    parts: dict[str, list[str]]  # Class names by kind
    lora: dict[str, Any]  # Options of the adapter
    rows: dict[str, str]  # SHA-256 of the training rows by file; "" of a name on the hub
    commands: list[str]  # Of the run, as typed, without keys
    versions: dict[str, str]  # Of graspl and its libraries in the last fit
    figures: list[Figure]  # Adherence, spill-over and what else was measured
    rates: list[Rate]  # That judges gave
    evaluated: list[Path]  # Files that the figures were read from
    notes: list[str]  # What a user of the adapter alone must know
    settings: str  # All settings of the fit as YAML, without keys


def fit_facts(run: RunFolder) -> FitFacts:
    """Return what a run's folder tells; figures of another adapter, or that cannot be trusted, are left out with a note.

    Raises:
        GrasplError: a file of the run is broken.
    """
    settings = run.config.read_text(encoding="utf-8") if run.config.is_file() else ""
    with foreign(run.config, "is not YAML that can be read", "fit again"):
        content = parse_yaml(settings)
    model, data = (content.get(name) if isinstance(content, dict) else None for name in ("model", "data"))
    options = (model.get("init_args") if isinstance(model, dict) else None) or {}
    figures, rates, evaluated, notes = _measured(run)
    every = RunFacts(run.path).read().get("commands", [])
    commands = [each for each in every if each["command"] in MADE_BY and each["status"] != "failed"]
    fits = [each for each in commands if each["command"] == "fit"]
    return FitFacts(
        method=_class(model) if model else "",
        data=_class(data) if data else "",
        parts={kind: found for kind in KINDS if (found := [*_parts(options.get(kind))])},
        lora={name: value for name, value in (options.get("lora") or {}).items() if value not in (None, {})},
        rows=_rows(run),
        commands=list(
            dict.fromkeys(shlex.join(["graspl", each["command"], *each["arguments"]]) for each in commands)
        ),
        versions={name: found for name, found in fits[-1]["versions"].items() if found} if fits else {},
        figures=figures,
        rates=rates,
        evaluated=evaluated,
        notes=[
            *notes,
            *_edit_notes(options.get("edits")),
            *(FOUR_BITS if options.get("load_in_4bit") else []),
        ],
        settings=hidden(settings),
    )


def _measured(run: RunFolder) -> tuple[list[Figure], list[Rate], list[Path], list[str]]:
    """Return figures, judged rates, the files that they are from, and why there are none."""
    nothing = "Adherence and spill-over were not measured"
    if not run.evaluation.exists():
        return [], [], [], [f"{nothing}: run `graspl validate`, then export again."]
    made_from = Lineage(run).read().get(run.evaluation.name, {"made_from": {}})["made_from"]
    if "./adapter" not in made_from.get("adapter", {}) or made_from.get("checkpoint"):
        return [], [], [], [f"{nothing} of this adapter: the folder's evaluation is of another one."]
    try:
        found = read_run(run.path)
    except StaleResult as error:
        return [], [], [], [f"{nothing}: {error}."]
    judged = [run.judged] if found.judged else []
    return figures_of(found), found.judged, [run.evaluation, run.items, *judged], []


def _rows(run: RunFolder) -> dict[str, str]:
    entry = Lineage(run).read().get(run.adapter.name, {"made_from": {}})
    rows: Mapping[str, Mapping[str, Any]] = entry["made_from"].get("rows", {})
    return {name: "".join(each["sha256"] for each in files.values()) for name, files in rows.items()}


def _parts(value: Any) -> Iterator[str]:
    """Yield the class names of a part or of several."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and "class_path" in each:
            yield _class(each)


def _class(each: Any) -> str:
    return str(each.get("class_path", "")).rpartition(".")[2] if isinstance(each, dict) else str(each)


def _edit_notes(edits: Any) -> Iterator[str]:
    """Yield a note for each edit that acts at inference, which no other program does."""
    for each in edits if isinstance(edits, list) else []:
        during = (
            (each.get("init_args") or {}).get("during", "training") if isinstance(each, dict) else "training"
        )
        if during != "training":
            yield (
                f"The run edits the residual stream at inference ({_class(each)}); the figures are with that edit, which "
                "exists only inside graspl: under other programs the model answers without it."
            )
