"""What is known of each method's runs: model, rows, options, versions, dates, cost."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from graspl.analysis.runs import Run, read_commands
from graspl.analysis.settings import settings_of
from graspl.reporting.grids import Grid
from graspl.runs import RunFolder
from graspl.runs.given import hidden

# Options that differ between any two runs
_PLACES = ("trainer.default_root_dir", "seed_everything", "data.init_args.seed")
_OPTIONS = {
    "rank": "model.init_args.lora.r",
    "alpha": "model.init_args.lora.lora_alpha",
    "lr": "model.init_args.optimizer.init_args.lr",
    "batch": "data.init_args.batch_size",
    "accumulated": "trainer.accumulate_grad_batches",
    "epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
}
UNSAID = {"accumulated": "1"}  # Values that are not worth a word


def facts_grid(runs: Mapping[str, Sequence[Run]]) -> Grid:
    """Return what is known of each method's runs, a row for each fact and a column for each method."""
    about = {name: [_of_evaluated(run) for run in here] for name, here in runs.items()}
    return _grid("Model, rows, options, versions, date and cost", about)


def folder_facts_grid(folders: Mapping[str, Sequence[Path]]) -> Grid:
    """Return the same of run folders that were fitted and perhaps not evaluated, as a study's are."""
    about = {name: [_of_folder(RunFolder(folder)) for folder in here] for name, here in folders.items()}
    return _grid("Model, rows, options, versions, date and cost", about)


def options_grid(folders: Mapping[str, RunFolder]) -> Grid:
    """Return the options in which the configurations of the methods' first runs differ."""
    every = {name: _flat(settings_of(folder)) for name, folder in folders.items()}
    known = {name: options for name, options in every.items() if options}
    names = list(dict.fromkeys(key for options in known.values() for key in options))
    rows = [
        (key, *(options.get(key, "-") for options in known.values())) for key in names if key not in _PLACES
    ]
    different = [row for row in rows if len(set(row[1:])) > 1]
    return Grid(
        "Options that differ (<run>/config.yaml has all)", ["option", *known], different, numbers=False
    )


def commands_grid(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Grid:
    """Return the commands that ran in each run's folder, and how they ended."""
    rows = [
        (
            name,
            " ".join(["graspl", each["command"], *map(str, each["arguments"])]),
            each["start"],
            each["ended"],
            "-" if each.get("seed") is None else str(each["seed"]),
            _versions(each),
        )
        for name, commands in runs.items()
        for each in commands
    ]
    return Grid(
        "Which commands ran in each run's folder, and how they ended (run.json)",
        ["run", "command", "started", "ended", "seed", "versions"],
        rows,
    )


def _grid(caption: str, about: Mapping[str, Sequence[Mapping[str, str]]]) -> Grid:
    """Return facts by column; what differs between the runs of one method is listed."""
    names = list(dict.fromkeys(name for each in about.values() for facts in each for name in facts))
    rows = []
    for name in names:
        cells = [
            ", ".join(dict.fromkeys(facts[name] for facts in each if facts.get(name)))
            for each in about.values()
        ]
        if any(cells):
            rows.append((name, *(cell or "-" for cell in cells)))
    return Grid(caption, ["", *about], rows, numbers=False)


def _of_evaluated(run: Run) -> dict[str, str]:
    parts = run.evaluation.get("parts") or {}
    listed = ", ".join(
        str(each)
        for found in parts.values()
        for each in (found if isinstance(found, list) else [found])
        if each
    )
    own = {
        "base model": str(run.evaluation.get("base_model") or ""),
        "method": str(run.evaluation.get("model") or ""),
    }
    if run.is_base:
        own["method"] = "none: the base model as it is"
    # It may have been measured with the configuration of another method
    fitted = settings_of(run.folder).get("model") if not run.is_base else None
    if isinstance(fitted, dict) and isinstance(fitted.get("class_path"), str):
        own["method"] = fitted["class_path"].rpartition(".")[2]
    return {**own, "parts": listed, **_of_folder(run.folder, run.commands, named=not run.is_base)}


def _of_folder(
    folder: RunFolder, commands: Sequence[Mapping[str, Any]] | None = None, *, named: bool = True
) -> dict[str, str]:
    commands = read_commands(folder) if commands is None else commands
    options = _flat(settings_of(folder))
    model = options.get("model.init_args.base_model", "")
    known = {
        title: options[key]
        for title, key in _OPTIONS.items()
        if options.get(key, "None") not in ("None", "-1", UNSAID.get(title))
    }
    fits = [each for each in commands if each["command"] == "fit"] or list(commands)
    facts = {"base model": model} if model else {}
    if named:
        facts |= {"rows": options.get("data.init_args.train") or options.get("data.class_path", "")}
        facts |= {"options": ", ".join(f"{title} {value}" for title, value in known.items())}
    facts |= {"seed": str(fits[-1]["seed"]) if fits and fits[-1].get("seed") is not None else ""}
    facts |= {"date": fits[-1]["start"][:10] if fits else "", "cost": _cost(folder, fits)}
    return facts | {"versions": _versions(fits[-1]) if fits else ""}


def _cost(folder: RunFolder, fits: Sequence[Mapping[str, Any]]) -> str:
    told = []
    seconds = sum(filter(None, (_seconds(each["start"], each.get("end")) for each in fits)))
    if seconds:
        told.append(f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s")
    spent = folder.read_cost()
    if spent is not None:
        steps = max((row.get("step", 0) for row in folder.read_metrics()), default=0) + 1
        told.append(f"{spent['start_flops'] + spent['step_flops'] * steps:.2g} operations")
    return ", ".join(told)


def _seconds(start: str, end: str | None) -> float | None:
    try:
        return (
            None
            if end is None
            else (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        )
    except ValueError:  # The record is checked for its form, not for its dates
        return None


def _versions(command: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in command["versions"].items() if version)


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Return options by dotted key, as text without keys and passwords."""
    if isinstance(value, Mapping):
        found = {}
        for key, each in value.items():
            found |= _flat(each, f"{name}.{key}" if name else str(key))
        return found
    return {name: hidden(str(value))} if name else {}
