"""The plan of a study: which fits it is made of, and which of them are there already."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graspl.errors import GrasplError
from graspl.runs import RunFolder, write_json_atomic, write_text_atomic

SEED = "{seed}"
"""In a configuration, stands for the fit's seed."""
FINGERPRINT = "study.json"


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

    @property
    def name(self) -> str:
        """For messages."""
        named = f"{self.method}, seed {self.seed}"
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
        """Whether its result is there.

        Raises:
            GrasplError: the folder holds a fit of another configuration.
        """
        if not self.folder.exists():
            return False
        kept = self.folder / FINGERPRINT
        if not kept.exists() or json.loads(kept.read_text(encoding="utf-8")) != self.fingerprint():
            raise GrasplError(
                f"out: {self.folder} holds a fit of another configuration; give another --out, or remove that folder"
            )
        return RunFolder(self.folder).adapter.exists()

    def prepare(self) -> list[str]:
        """Write the fit's configuration and return the arguments of `graspl` that run it, or go on with it."""
        checkpoint = RunFolder(self.folder).checkpoints / "last.ckpt"
        if self.folder.exists() and not checkpoint.exists():
            shutil.rmtree(self.folder)  # it was stopped before there was anything to go on with
        config = {**_with_seed(self.config, self.seed), "seed_everything": self.seed}
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
        GrasplError: there is nothing to fit, or a name cannot be a folder.
    """
    if not base.is_file():
        raise GrasplError(f"fit: there is no file {base}; give the configuration that all fits share")
    if not methods or not seeds:
        raise GrasplError("methods: a study needs at least one method and one seed")
    _require_folder_names("methods", methods)
    _require_folder_names("tasks", tasks or {})
    return [
        Fit(
            name,
            seed,
            (out if task is None else out / task) / name / f"seed_{seed}",
            base,
            _merged(config, (tasks or {}).get(task, {})) if task is not None else config,
            task,
        )
        for seed in dict.fromkeys(seeds)
        for task in (tasks or [None])
        for name, config in methods.items()
    ]


def _require_folder_names(option: str, names: Iterable[str]) -> None:
    for name in names:
        if not name or name in (".", "..") or set(name) & set('/\\:*?"<>|'):
            raise GrasplError(f"{option}: {name!r} cannot name a folder; use letters, digits, - and _")


def _merged(config: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with another's keys put over its own, at every depth."""
    merged = {**config, **more}
    for key in config.keys() & more.keys():
        if isinstance(config[key], Mapping) and isinstance(more[key], Mapping):
            merged[key] = _merged(config[key], more[key])
    return merged


def _with_seed(config: Any, seed: int) -> Any:
    if isinstance(config, Mapping):
        return {key: _with_seed(value, seed) for key, value in config.items()}
    if isinstance(config, list):
        return [_with_seed(value, seed) for value in config]
    return seed if config == SEED else config
