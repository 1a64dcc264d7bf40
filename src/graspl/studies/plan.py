"""The plan of a study: its fits, and which of them are done."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graspl.analysis.fits import StudyFit
from graspl.errors import GrasplError, foreign
from graspl.runs import (
    RunFolder,
    parse_yaml,
    read_json,
    remove_left_over,
    write_json_atomic,
    write_text_atomic,
)
from graspl.studies.inputs import inputs_of
from graspl.studies.kept import keep, recorded_in
from graspl.studies.methods import merged, settings_of_trainer

SEED = "{seed}"  # In a configuration, stands for the fit's seed, alone or within a text
TASK = "{task}"  # In a configuration, stands for the name of the fit's task
# In a configuration, `{fit:NAME}` stands for the folder of method NAME's fit with the same seed, on the same task.
OTHER_FIT = re.compile(r"\{fit:([^{}]+)\}")
TUNING = "tuning"  # Folder for the trials, inside the study's folder
FINGERPRINT = "study.json"
DONE = "study_done.json"
Configs = Mapping[str, Mapping[str, Any]]  # By name


@dataclass(frozen=True)
class Fit(StudyFit):
    """One fit of a study, as it is run."""

    base: Path  # Configuration that all fits share
    config: Mapping[str, Any]  # What its method and its task add or change
    trial: int | None = None  # Number of the setting that is tried; None for a reported fit

    @property
    def name(self) -> str:
        """For messages."""
        trial = "" if self.trial is None else f", trial {self.trial}"
        named = f"{self.method}{trial}, seed {self.seed}"
        return named if self.task is None else f"{self.task}, {named}"

    @property
    def own_config(self) -> Path:
        """The file with this fit's own configuration."""
        return self.folder.with_suffix(".yaml")

    @property
    def log(self) -> Path:
        """The file with the fit's output."""
        return self.folder.with_suffix(".log")

    def trainer(self) -> Mapping[str, Any]:
        """Return the settings of its trainer."""
        shared = parse_yaml(self.base.read_text(encoding="utf-8"))
        return merged(settings_of_trainer(shared), settings_of_trainer(self.config))

    def fingerprint(self) -> str:
        """Return a hexadecimal SHA-256 of configuration and seed."""
        shared = self.base.read_text(encoding="utf-8")
        content = json.dumps([shared, self.config, self.seed], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def recorded(self) -> dict[str, Any]:
        """Return what the fit is of, to be recorded: its fingerprint, and the SHA-256 of the files that it reads."""
        filled = _filled_in(self.config, self.seed, self.task, self.made_from)
        return {"fingerprint": self.fingerprint(), "inputs": inputs_of(self.base, filled, self.made_from)}

    def _differs(self, recorded: Any) -> str | None:
        """Return what a record is of that this fit is not; None if they agree. Old records have no inputs."""
        ours = self.recorded()
        if not isinstance(recorded, dict) or recorded.get("fingerprint") != ours["fingerprint"]:
            return "configuration"
        theirs = recorded.get("inputs", {})
        if not isinstance(theirs, dict):
            return "configuration"
        return next(
            (name for name, found in ours["inputs"].items() if theirs.get(name, found) != found), None
        )

    def is_done(self) -> bool:
        """Whether it ended well. An adapter alone does not tell: other files are written after it."""
        if self.kept is not None and self.kept.exists():
            differs = self._differs(recorded_in(self.kept))
            if differs is not None:
                raise GrasplError(
                    f"kept: {self.kept} is of another {differs}; remove it, or name another folder"
                )
            for folder in (self.folder, self.kept.parent):  # It may have been killed behind its record
                remove_left_over(folder)
            return True
        kept = self.folder / FINGERPRINT
        # A fit stopped while writing its first file leaves only the scratch folder of `atomic_path`
        if all(each.name.startswith(f".{FINGERPRINT}.") for each in self.folder.glob("*")):
            return False
        differs = self._differs(read_json(kept, "fit", "remove it")) if kept.exists() else "configuration"
        if differs is not None:
            fix = "give another --out, or remove that folder"
            raise GrasplError(f"out: {self.folder} holds a fit with another {differs}; {fix}")
        return (self.folder / DONE).exists()

    def mark_done(self, seconds: float) -> None:
        """Record that it ended well, after so many seconds."""
        if self.kept is not None:
            # As it was when the fit began
            keep(self, self.kept, read_json(self.folder / FINGERPRINT, "fit", "remove the folder"), seconds)
        write_json_atomic(self.folder / DONE, True)

    def prepare(self) -> list[str]:
        """Write the fit's configuration, and return the arguments of `graspl` that start or resume it."""
        checkpoint = RunFolder(self.folder).checkpoints / "last.ckpt"
        aside = self.folder.with_name(f".{self.folder.name}.stopped")
        shutil.rmtree(aside, ignore_errors=True)
        if self.folder.exists() and not checkpoint.exists():
            # Stopped before its first checkpoint. Rename first: a half-deleted folder would look like another fit
            self.folder.rename(aside)
            shutil.rmtree(aside)
        filled = _filled_in(self.config, self.seed, self.task, self.made_from)
        config = {**filled, "seed_everything": self.seed}
        write_text_atomic(self.own_config, yaml.safe_dump(config, sort_keys=False))
        write_json_atomic(self.folder / FINGERPRINT, self.recorded())
        arguments = ["fit", f"--config={self.base}", f"--config={self.own_config}"]
        arguments += [f"--trainer.default_root_dir={self.folder}"]
        arguments += ["--trainer.callbacks+=graspl.callbacks.MeasureCost"]
        return [*arguments, "--ckpt_path", "last"] if checkpoint.exists() else arguments


def plan_fits(
    base: Path,
    methods: Configs,
    seeds: Sequence[int],
    out: Path,
    tasks: Configs | None = None,
    kept: Path | None = None,
) -> list[Fit]:
    """Return the fits of a study, seed by seed and task by task, so that an interrupted study has complete seeds.

    A task's configuration is put over that of every method; without tasks there is one. Records are kept in `kept`, as
    `<task>/<method>_<seed>.json`.
    """
    if not base.is_file():
        raise GrasplError(f"fit: no file {base}; give the configuration that all fits share")
    with foreign(f"fit: {base}", "is not YAML that can be read", "correct it"):
        parse_yaml(base.read_text(encoding="utf-8"))
    if not methods or not seeds:
        raise GrasplError("methods: a study needs at least one method and one seed")
    _require_folder_names("methods", methods)
    _require_folder_names("tasks", tasks or {})
    others = {name: _made_from(name, methods) for name in methods}
    fits = []
    for seed in dict.fromkeys(seeds):
        for task, changes in (tasks or {None: {}}).items():
            here = out if task is None else out / task
            for name, config in methods.items():
                folder, whole = here / name / f"seed_{seed}", merged(config, changes)
                sources = {other: here / other / f"seed_{seed}" for other in others[name]}
                record = None if kept is None else kept / (task or "") / f"{name}_{seed}.json"
                fits.append(Fit(name, seed, folder, base, whole, task=task, made_from=sources, kept=record))
    return fits


def sources_in(config: Any) -> set[str]:
    """Return the methods from which a configuration takes something: NAME of every `{fit:NAME}` in it."""
    return set(OTHER_FIT.findall(json.dumps(config, ensure_ascii=False)))


def _made_from(name: str, methods: Configs) -> set[str]:
    found = sources_in(methods[name])
    for other in sorted(found):
        if other not in methods:
            raise GrasplError(f"methods.{name}: is made from {other}, which is not among the methods")
        if sources_in(methods[other]):
            raise GrasplError(f"methods.{name}: is made from {other}, which is made from another method")
    return found


def _require_folder_names(option: str, names: Iterable[str]) -> None:
    for name in names:
        if not name or name in (".", "..", TUNING) or set(name) & set('/\\:*?"<>|'):
            raise GrasplError(f"{option}: {name!r} cannot name a folder; use letters, digits, - and _")


def _filled_in(config: Any, seed: int, task: str | None, folders: Mapping[str, Path]) -> Any:
    if isinstance(config, Mapping):
        return {key: _filled_in(value, seed, task, folders) for key, value in config.items()}
    if isinstance(config, list):
        return [_filled_in(value, seed, task, folders) for value in config]
    if config == SEED:
        return seed
    if isinstance(config, str):
        text = config.replace(SEED, str(seed)).replace(TASK, task or TASK)
        return OTHER_FIT.sub(lambda match: str(folders[match[1]]), text)
    return config
