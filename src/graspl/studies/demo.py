"""The steps of `graspl demo`: fits of the organism, and what each of them and the base model do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from graspl.runs import RunFolder
from graspl.studies.methods import merged
from graspl.studies.plan import Fit
from graspl.studies.shipped import shipped_configs
from graspl.studies.trial import BASE, GRASP, NAIVE, Evaluation


class Demo(NamedTuple):
    """Everything that is run, in its order."""

    naive: Fit
    grasp: Fit
    measured: list[Evaluation]  # The base model and both fits, each beside the GRASP fit's directions
    text: Path  # Unlabelled text of the organism's world
    rows: Path  # What the fits learn

    @property
    def runs(self) -> list[Path]:
        """The three run folders."""
        return [each.folder for each in self.measured]


def plan_demo(out: Path, *, seed: int, over: Mapping[str, Any]) -> Demo:
    """Return the steps, with the configurations that graspl ships.

    Args:
        out: the folder of everything.
        seed: of both fits.
        over: a configuration put over that of both fits and of the evaluations.

    Raises:
        GrasplError: `out` holds fits with other settings.
    """
    configs = shipped_configs() / "organism"
    naive, grasp = (
        Fit(name, seed, out / name, configs / f"{file}.yaml", dict(over))
        for name, file in ((NAIVE, "fit"), (GRASP, "grasp"))
    )
    for fit in (naive, grasp):
        fit.is_done()  # Refuses a folder with other settings before anything runs
    directions = str(RunFolder(out / GRASP).directions)
    config = merged(yaml.safe_load((configs / "fit.yaml").read_text(encoding="utf-8")), over)
    config = merged(config, {"seed_everything": seed, "model": {"init_args": {"directions": directions}}})
    measured = [Evaluation(out / name, config) for name in (BASE, NAIVE, GRASP)]
    return Demo(naive, grasp, measured, configs / "text.jsonl", configs / "rows.jsonl")
