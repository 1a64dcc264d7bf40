"""`graspl causal`: does moving the base model along directions do what they are said to do?"""

from pathlib import Path

from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from peft import PeftModel
from rich.table import Table

from graspl.adapters.base_model import load_adapter, load_base_model
from graspl.adapters.files import read_adapter
from graspl.commands.terminal import console
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.reporting.tables import figure
from graspl.runs import adapter_of, write_json_atomic
from graspl.studies.causal import CausalCheck, causal_check
from graspl.studies.mediation import Mediation, mediation


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl causal`."""
    parser.add_argument("directions", type=Path, help="a file with layers' directions")
    # An option by name and not by place, as in graspl fit
    parser.add_subclass_arguments(LightningDataModule, "data", required=True, help="the task")
    parser.add_function_arguments(causal, skip={"directions", "data"})


def causal(
    directions: Path,
    data: LightningDataModule,
    base_model: str | None = None,
    adapter: Path | None = None,
    strength: float = 2.0,
    seed: int = 0,
    out: Path | None = None,
) -> CausalCheck:
    """Add and subtract directions in the base model's stream, and see how the harmful share on unrelated topics moves.

    Args:
        directions: a file with layers' directions.
        data: the task; its training answers say which way to go, its unrelated suite is measured.
        base_model: hub name or folder; the one that the directions name where None.
        adapter: PEFT folder or run folder; how much of what it does goes through the directions is measured too.
        strength: of a step, in standard deviations of the base model's own stream along the directions.
        seed: of the random steps that they are compared with.
        out: file to write, `.json`; beside the directions, `causal.json`, where none is given.

    Raises:
        GrasplError: the directions, the model or the data cannot be used.
    """
    found = Directions.load(directions)
    name = base_model or found.metadata.get("base_model")
    if not name:
        raise GrasplError(f"base_model: {directions} does not name it; give one")
    if not isinstance(data, TaskDataModule):
        raise GrasplError("data: give a graspl.data.TaskDataModule, e.g. --data configs/organism/task.yaml")
    data.base_model = data.base_model or name
    data.setup("fit")
    check = causal_check(load_base_model(name).eval(), data, found, strength=strength, seed=seed)
    target = out or directions.with_name("causal.json")
    content = {
        "directions": str(directions),
        "strength": strength,
        "base": check.base,
        "layers": {layer: effect._asdict() for layer, effect in check.layers.items()},
        "verdict": check.verdict(),
    }
    through = mediation(_adapted(adapter, name), data, found, seed=seed) if adapter else {}
    if through:
        content |= {
            "adapter": str(adapter),
            "mediation": {suite: _fields(each) for suite, each in through.items()},
        }
    write_json_atomic(target, content)
    table = Table(
        "layer",
        "added",
        "subtracted",
        "random",
        title=f"harmful share on unrelated topics; base {check.base:.3f}",
    )
    for layer, effect in check.layers.items():
        spread = f"{figure(min(effect.random))} to {figure(max(effect.random))}"
        table.add_row(layer, figure(effect.added), figure(effect.subtracted), spread)
    terminal = console()
    terminal.print(table)
    if through:
        terminal.print(_mediation_table(through))
    for line in (check.verdict(), f"causal check: {target}"):
        terminal.print(line, soft_wrap=True, highlight=False, markup=False)
    return check


def _adapted(adapter: Path, base_model: str) -> PeftModel:
    """Return the model with an adapter on it, in evaluation mode."""
    folder = adapter_of(adapter)
    read_adapter(folder)  # says in clear words what PEFT would fail on
    return load_adapter(load_base_model(base_model), str(folder)).eval()


def _fields(each: Mediation) -> dict[str, float | None]:
    return {**each._asdict(), "mediated": each.mediated}


def _mediation_table(found: dict[str, Mediation]) -> Table:
    """Return one row a suite."""
    titles = ("suite", "base", "adapted", "put back", "put back, random", "through the directions")
    table = Table(
        *titles, title="harmful share with the adapter, and with the stream put back along the directions"
    )
    for suite, each in found.items():
        table.add_row(suite, *(figure(value) for value in each), figure(each.mediated))
    return table
