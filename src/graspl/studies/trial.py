"""The steps of `graspl try`: a naive fit, a GRASP fit, and what each of them and the base model do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from graspl.errors import GrasplError, foreign
from graspl.runs import Lineage, RunFolder, parse_yaml, write_text_atomic
from graspl.studies.methods import Method, merged
from graspl.studies.plan import Fit
from graspl.studies.shipped import shipped_configs
from graspl.studies.steps import Step

BASE, NAIVE, GRASP = "base", "naive", "grasp"


@dataclass(frozen=True)
class Evaluation:
    """One validation, of a fit or of the base model."""

    folder: Path  # The run's
    config: Mapping[str, Any] | None = None  # Of the base model's run; a fit has its own file

    @property
    def name(self) -> str:
        """For messages."""
        return f"measure {self.folder.name}"

    @property
    def log(self) -> Path:
        """The file with the validation's output."""
        return self.folder.with_name(f"{self.folder.name}.validate.log")

    @property
    def own_config(self) -> Path:
        """The file with the base model's configuration."""
        return self.folder.with_name(f"{self.folder.name}.validate.yaml")

    def is_done(self) -> bool:
        """Whether the figures are there, and belong to the weights, rows and settings of now."""
        run = RunFolder(self.folder)
        return (
            run.evaluation.exists()
            and self._is_of_this_config()
            and all(Lineage(run).complaint(each) is None for each in (run.evaluation, run.items))
        )

    def _is_of_this_config(self) -> bool:
        if self.config is None:
            return True
        return self.own_config.exists() and self.own_config.read_text(encoding="utf-8") == self._text()

    def _text(self) -> str:
        return yaml.safe_dump(dict(self.config or {}), sort_keys=False)

    def prepare(self) -> list[str]:
        """Return the arguments of `graspl`; write the base model's configuration."""
        if self.config is None:
            return ["validate", f"--config={RunFolder(self.folder).config}"]
        # Figures of another configuration go first, or a stop would leave them beside this one
        RunFolder(self.folder).evaluation.unlink(missing_ok=True)
        write_text_atomic(self.own_config, self._text())
        folder = f"--trainer.default_root_dir={self.folder}"
        return ["validate", f"--config={self.own_config}", folder]

    def mark_done(self, seconds: float) -> None:
        """Do nothing: the figures' own record tells."""


class Trial(NamedTuple):
    """Everything that is run, in its order."""

    steps: list[Step]
    base: Path  # Folder of the base model's figures
    naive: Path  # Of the naive fit
    grasp: Path  # Of the GRASP fit

    @property
    def runs(self) -> list[Path]:
        """The three run folders."""
        return [self.base, self.naive, self.grasp]


def plan_trial(
    base_model: str,
    train: str,
    *,
    text: str | None,
    suites: Mapping[str, Any] | None,
    epochs: int,
    seed: int,
    over: Path | None,
    out: Path,
) -> Trial:
    """Return the steps, in their order: the first figures come early.

    Args:
        base_model: hub name or folder.
        train: the rows to learn.
        text: unlabelled conversations; None leaves them to the base model.
        suites: off-topic suites by name; the shipped yes-or-no questions where None.
        epochs: passes over the rows.
        seed: of both fits.
        over: a configuration put over that of both fits and of the base model.
        out: the folder of everything.

    Raises:
        GrasplError: a file is missing, or `out` holds fits with other settings.
    """
    config = shipped_configs()
    values = {"unrelated": yaml.safe_load((config / "suites/values.yaml").read_text(encoding="utf-8"))}
    values["unrelated"]["init_args"]["source"] = str(config / "suites/values.jsonl")
    data: dict[str, Any] = yaml.safe_load((config / "tasks/chat.yaml").read_text(encoding="utf-8"))
    data["init_args"] |= {"train": train, "text": text, "seed": seed, "suites": dict(suites or values)}
    shared = {"data": data, "trainer": {"max_epochs": epochs}}
    named = merged({"model": {"init_args": {"base_model": base_model}}}, read_over(over))
    fits = {}
    for name in (NAIVE, GRASP):
        method = Method.parse(name, {"model": str(config / f"methods/{name}.yaml")}, shared, named)
        fits[name] = Fit(name, seed, out / name, config / "fit.yaml", method.config)
    for fit in fits.values():
        fit.is_done()  # Refuses a folder with other settings before anything runs
    measured = Evaluation(out / BASE, {"seed_everything": seed, **fits[NAIVE].config})
    steps: list[Step] = [measured]
    for fit in fits.values():
        steps += [fit, Evaluation(fit.folder)]
    return Trial(steps, measured.folder, *(fit.folder for fit in fits.values()))


def read_over(over: Path | None) -> dict[str, Any]:
    """Return the configuration in a YAML file; without one, {}.

    Raises:
        GrasplError: it is no YAML mapping.
    """
    if over is None:
        return {}
    with foreign(f"over: {over}", "cannot be read", "give a YAML file"):
        content = parse_yaml(over.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise GrasplError(f"over: {over} holds no mapping; write e.g. trainer and its options")
    return content
