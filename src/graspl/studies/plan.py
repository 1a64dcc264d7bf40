"""The plan of a study: which fits it is made of, and which of them are there already."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from graspl.errors import GrasplError
from graspl.runs import RunFolder, write_json_atomic, write_text_atomic

SEED = "{seed}"
"""In a configuration, stands for the fit's seed, alone or within a text."""
OTHER_FIT = re.compile(r"\{fit:([^{}]+)\}")
"""In a configuration, `{fit:NAME}` stands for the folder of another method's fit with the same seed, on the same task."""
TUNING = "tuning"
"""Folder within a study's, with the trials."""
FINGERPRINT = "study.json"
DONE = "study_done.json"


@dataclass(frozen=True)
class Method:
    """One method of a study."""

    config: Mapping[str, Any]
    """What it adds to the configuration that all share."""
    tune: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values to choose from by dotted key of `config`; without any it is taken as it is."""
    needs: str = ""
    """What it needs beyond the task's rows, in words, for the table."""
    development: Mapping[str, Any] = field(default_factory=dict)
    """Put over `config` in its trials, e.g. rows that are not those evaluated on the development data."""

    @classmethod
    def parse(cls, name: str, given: Mapping[str, Any]) -> "Method":
        """Read one entry of `methods`: a configuration, with `tune`, `needs` and `development` beside it.

        Raises:
            GrasplError: one of them is of the wrong kind.
        """
        if not isinstance(given, Mapping):
            raise GrasplError(f"methods.{name}: give a configuration, e.g. data and model")
        config = {key: value for key, value in given.items() if key not in ("tune", "needs", "development")}
        tune, needs, development = (given.get(key) or {} for key in ("tune", "needs", "development"))
        needs = needs or ""
        if not isinstance(tune, Mapping) or not isinstance(development, Mapping):
            raise GrasplError(
                f"methods.{name}: give tune as lists of values by dotted key, and development as a configuration"
            )
        if not isinstance(needs, str):
            raise GrasplError(f"methods.{name}.needs: give a text")
        return cls(config, tune, needs, development)


@dataclass(frozen=True)
class Fit:
    """One fit of a study."""

    method: str
    """Name of the method."""
    seed: int
    """Of the adapter's start and wherever the configuration says `{seed}`."""
    folder: Path
    """Its run folder."""
    base: Path
    """Configuration that all fits share."""
    config: Mapping[str, Any]
    """What this method, and its task, add or change."""
    task: str | None = None
    """Name of the task; None in a study of one."""
    trial: int | None = None
    """Number of the setting that is tried; None where it is reported."""
    made_from: Mapping[str, Path] = field(default_factory=dict)
    """Folders of the fits that this one takes something from, by method; they come first."""

    @property
    def name(self) -> str:
        """For messages."""
        trial = "" if self.trial is None else f", trial {self.trial}"
        named = f"{self.method}{trial}, seed {self.seed}"
        return named if self.task is None else f"{self.task}, {named}"

    @property
    def own_config(self) -> Path:
        """File with what this fit adds to the shared configuration."""
        return self.folder.with_suffix(".yaml")

    @property
    def log(self) -> Path:
        """File with what the fit printed."""
        return self.folder.with_suffix(".log")

    def fingerprint(self) -> str:
        """Return the hexadecimal SHA-256 of all that determines the fit, but for graspl itself."""
        shared = self.base.read_text(encoding="utf-8")
        content = json.dumps([shared, self.config, self.seed], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def is_done(self) -> bool:
        """Whether it ended well; an adapter alone does not say so, since other files come after it.

        Raises:
            GrasplError: the folder holds a fit of another configuration.
        """
        kept = self.folder / FINGERPRINT
        # Stopped while the very first file was written, which `atomic_path` does in a folder of this name
        if all(each.name.startswith(f".{FINGERPRINT}.") for each in self.folder.glob("*")):
            return False
        if not kept.exists() or json.loads(kept.read_text(encoding="utf-8")) != self.fingerprint():
            raise GrasplError(
                f"out: {self.folder} holds a fit of another configuration; give another --out, or remove that folder"
            )
        return (self.folder / DONE).exists()

    def mark_done(self) -> None:
        """Say that it ended well."""
        write_json_atomic(self.folder / DONE, True)

    def prepare(self) -> list[str]:
        """Write the fit's configuration and return the arguments of `graspl` that run it, or go on with it."""
        checkpoint = RunFolder(self.folder).checkpoints / "last.ckpt"
        aside = self.folder.with_name(f".{self.folder.name}.stopped")
        shutil.rmtree(aside, ignore_errors=True)
        if self.folder.exists() and not checkpoint.exists():
            # It was stopped before there was anything to go on with. Renamed first: half a folder would pass for another's
            self.folder.rename(aside)
            shutil.rmtree(aside)
        config = {**_filled_in(self.config, self.seed, self.made_from), "seed_everything": self.seed}
        write_text_atomic(self.own_config, yaml.safe_dump(config, sort_keys=False))
        write_json_atomic(self.folder / FINGERPRINT, self.fingerprint())
        arguments = ["fit", "--config", str(self.base), "--config", str(self.own_config)]
        arguments += [
            "--trainer.default_root_dir",
            str(self.folder),
            "--trainer.enable_progress_bar",
            "false",
        ]
        arguments += ["--trainer.enable_model_summary", "false"]
        arguments += ["--trainer.callbacks+=graspl.callbacks.MeasureCost"]
        return [*arguments, "--ckpt_path", "last"] if checkpoint.exists() else arguments


def plan_fits(
    base: Path,
    methods: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    out: Path,
    tasks: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Fit]:
    """Return the fits of a study, seed by seed and task by task, so that an interrupted study has whole ones.

    Args:
        base: configuration that all fits share.
        methods: what each adds, by name.
        seeds: of the fits.
        out: the study's folder.
        tasks: what each adds to every method, and where they differ sets, by name; one task where None or empty.

    Raises:
        GrasplError: there is nothing to fit, a name cannot be a folder, or a method is made from one that is not there.
    """
    if not base.is_file():
        raise GrasplError(f"fit: there is no file {base}; give the configuration that all fits share")
    if not methods or not seeds:
        raise GrasplError("methods: a study needs at least one method and one seed")
    _require_folder_names("methods", methods)
    _require_folder_names("tasks", tasks or {})
    others = {name: _made_from(name, methods) for name in methods}
    fits = []
    for seed in dict.fromkeys(seeds):
        for task in tasks or [None]:
            here = out if task is None else out / task
            for name, config in methods.items():
                whole = config if task is None else merged(config, (tasks or {}).get(task, {}))
                sources = {other: here / other / f"seed_{seed}" for other in others[name]}
                folder = here / name / f"seed_{seed}"
                fits.append(Fit(name, seed, folder, base, whole, task, made_from=sources))
    return fits


def sources_in(config: Any) -> set[str]:
    """Return the methods that a configuration takes something from: NAME of every `{fit:NAME}` in it."""
    return {name for text in _texts(config) for name in OTHER_FIT.findall(text)}


def _made_from(name: str, methods: Mapping[str, Mapping[str, Any]]) -> set[str]:
    found = sources_in(methods[name])
    for other in sorted(found):
        if other not in methods:
            raise GrasplError(f"methods.{name}: is made from {other}, which is not among the methods")
        if sources_in(methods[other]):
            raise GrasplError(
                f"methods.{name}: is made from {other}, which is made from another method itself"
            )
    return found


def _texts(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping):
        config = list(config.values())
    if isinstance(config, str):
        yield config
    elif isinstance(config, list):
        for each in config:
            yield from _texts(each)


def _require_folder_names(option: str, names: Iterable[str]) -> None:
    for name in names:
        if not name or name in (".", "..", TUNING) or set(name) & set('/\\:*?"<>|'):
            raise GrasplError(
                f"{option}: {name!r} cannot name a folder of the study; use letters, digits, - and _"
            )


def merged(config: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with another's keys put over its own, at every depth."""
    both = {**config, **more}
    for key in config.keys() & more.keys():
        if isinstance(config[key], Mapping) and isinstance(more[key], Mapping):
            both[key] = merged(config[key], more[key])
    return both


def _filled_in(config: Any, seed: int, folders: Mapping[str, Path]) -> Any:
    if isinstance(config, Mapping):
        return {key: _filled_in(value, seed, folders) for key, value in config.items()}
    if isinstance(config, list):
        return [_filled_in(value, seed, folders) for value in config]
    if config == SEED:
        return seed
    if isinstance(config, str):
        text = config.replace(SEED, str(seed))
        return OTHER_FIT.sub(lambda match: str(folders[match[1]]), text)
    return config
