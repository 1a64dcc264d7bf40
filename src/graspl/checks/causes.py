"""The causal check of a directions file, with an adapter's mediation."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning import LightningDataModule
from rich.table import Table

from graspl.adapters import load_adapter, load_base_model, read_adapter
from graspl.checks.causal import CausalCheck, causal_check
from graspl.checks.mediation import Mediation, mediation
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.runs import DirectionsFiles, adapter_of, write_json_atomic


@dataclass(frozen=True)
class CausalOptions:
    """How directions are tested."""

    data: LightningDataModule | None = None
    """The task; needed to test. Its training answers say which way to move; its unrelated suite is measured."""
    adapter: Path | None = None
    """Adapter or run: how much of its effect goes through the directions; the identified one by default."""
    strength: float = 2.0
    """Length of a step, in standard deviations of the base model's own stream along the directions."""
    seed: int = 0
    """Of the random steps to compare with."""


class Causes(NamedTuple):
    """What moving along directions does."""

    check: CausalCheck  # The base model, moved
    mediation: dict[str, Mediation]  # By suite; empty without an adapter
    path: Path  # The file, `causal.json` beside the directions

    def render(self) -> Iterator[Table | str]:
        """Yield a table of layers, one of suites where there is an adapter, the verdict and the file."""
        title = f"harmful share on unrelated topics; base {self.check.base:.3f}"
        table = Table("layer", "added", "subtracted", "random", title=title)
        for layer, effect in self.check.layers.items():
            spread = f"{min(effect.random):.3f} to {max(effect.random):.3f}"
            table.add_row(layer, f"{effect.added:.3f}", f"{effect.subtracted:.3f}", spread)
        yield table
        if self.mediation:
            titles = ("suite", "base", "adapted", "put back", "put back, random", "through the directions")
            title = "harmful share with the adapter, and with the stream put back along the directions"
            table = Table(*titles, title=title)
            for suite, each in self.mediation.items():
                through = "-" if each.mediated is None else f"{each.mediated:.3f}"
                table.add_row(suite, *(f"{value:.3f}" for value in each), through)
            yield table
        yield self.check.verdict()
        yield f"causal check: {self.path}"


def causes(path: Path, base_model: str, options: CausalOptions) -> Causes:
    """Move the base model along directions, measure unrelated topics, and write `causal.json` beside their file.

    Raises:
        GrasplError: the directions, the model or the data cannot be used.
    """
    found, data = Directions.load(path), options.data
    if not isinstance(data, TaskDataModule):
        raise GrasplError("causal.data: give a TaskDataModule, e.g. graspl.organism.OrganismTaskData")
    data.base_model = data.base_model or base_model
    data.setup("fit")
    model = load_base_model(base_model).eval()
    check = causal_check(model, data, found, strength=options.strength, seed=options.seed)
    through: dict[str, Mediation] = {}
    content: dict[str, Any] = {
        "directions": str(path),
        "strength": options.strength,
        "base": check.base,
        "layers": {layer: effect._asdict() for layer, effect in check.layers.items()},
        "verdict": check.verdict(),
    }
    if options.adapter is not None:
        folder = adapter_of(options.adapter)
        read_adapter(folder)  # says in clear words what PEFT would fail on
        adapted = load_adapter(load_base_model(base_model), str(folder)).eval()
        through = mediation(adapted, data, found, seed=options.seed)
        content["adapter"] = str(options.adapter)
        content["mediation"] = {
            suite: {**each._asdict(), "mediated": each.mediated} for suite, each in through.items()
        }
    target = DirectionsFiles(path).causal
    write_json_atomic(target, content)
    return Causes(check, through, target)
