"""What a fit or a validation leaves about itself: `run.json`, and what its results were made from."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from graspl.data.task import TaskDataModule
from graspl.methods.lora import LoRALitModule
from graspl.runs import Given, Lineage, RunFacts, RunFolder, given, running


@contextmanager
def recorded(
    run: RunFolder, module: LightningModule, name: str, options: str, *, seed: Any, writes: bool
) -> Iterator[None]:
    """Record how a fit or a validation starts and ends, and what it reads, as it is before it is read.

    Args:
        run: the run folder.
        module: what is trained.
        name: of the command.
        options: all its options as YAML.
        seed: of its random numbers.
        writes: whether this is the process that writes.
    """
    with running(name, sys.argv[2:], options) as command:
        if not writes:
            yield
            return
        with RunFacts(run.path).command(name, seed):
            Lineage(run).remember(_read(run, module, command))
            yield


def record_log(trainer: Trainer, module: LightningModule) -> None:
    """Record what was logged in a fit; loggers write until it ends."""
    run = RunFolder(trainer.default_root_dir)
    others = (each for each in (run.null_space, run.own_text, run.cost) if each.exists())
    sources = sources_of(trainer, module) if isinstance(module, LoRALitModule) else {}
    Lineage(run).record([*run.metrics_files(), *others], sources | {"configuration": [run.config]})


def sources_of(trainer: Trainer, module: LoRALitModule) -> dict[str, list[str]]:
    """Return what the results of a fit or a validation are made from, for `Lineage.record`."""
    validating, run = trainer.state.fn == "validate", RunFolder(trainer.default_root_dir)
    data: Any = getattr(trainer, "datamodule", None)  # A fit that failed early has none yet
    found = {"base model": [module.base_model], "adapter": [module.adapter] if module.adapter else []}
    found["checkpoint"] = [str(trainer.ckpt_path)] if trainer.ckpt_path and validating else []
    found["directions"] = [module.directions] if isinstance(module.directions, str) else []
    found["rows"] = data.sources() if isinstance(data, TaskDataModule) else []
    known, command = {Path(each).resolve() for every in found.values() for each in every}, given()
    files = [] if command is None else [*command.files]
    files = files if validating else _outside(files, run)
    found["file"] = [each for each in files if Path(each).resolve() not in known]
    return {label: every for label, every in found.items() if every}


def _read(run: RunFolder, module: LightningModule, command: Given) -> list[str]:
    """Return what a command reads, as far as its options tell; a fit writes into its own folder, so that is left out."""
    reads = [*command.files, *command.configs]
    if isinstance(module, LoRALitModule):
        named = (module.base_model, module.adapter, module.directions)
        reads += [each for each in named if isinstance(each, str)]
    return reads if command.command != "fit" else _outside(reads, run)


def _outside(files: Iterable[str], run: RunFolder) -> list[str]:
    """Return the files that do not lie in a run folder."""
    own = run.path.resolve()
    return [each for each in files if not Path(each).resolve().is_relative_to(own)]
