"""`graspl explain`: what directions mean to the base model."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.activations.meaning import lenses, most_moved, spread_along, steering_along
from graspl.activations.streams import gathered, tokenized
from graspl.adapters.base_model import load_base_model, load_tokenizer
from graspl.commands.terminal import console
from graspl.data.tokens import TokenizedConversation, with_chat_template
from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.runs import DirectionsFiles, write_json_atomic


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl explain`."""
    parser.add_argument("directions", type=Path, help="a file with layers' directions")
    parser.add_function_arguments(explain, skip={"directions"})


def explain(
    directions: Path,
    text: str,
    base_model: str | None = None,
    layer: str | None = None,
    direction: int = 1,
    prompts: int = 4,
    limit: int = 256,
    dtype: str = "auto",
    out: Path | None = None,
) -> dict[str, Any]:
    """Say what directions mean: tokens they favour, text that lies furthest along them, answers when steered.

    `graspl report` shows it for directions that a run was evaluated with.

    Args:
        directions: a file with layers' directions.
        text: unlabelled conversations by many writers; their prompts are answered.
        base_model: hub name or folder; the one that the directions name where None.
        layer: whose direction is read on text and steered; the middle one where None.
        direction: which of that layer's, from 1.
        prompts: answered as the model is, and moved both ways.
        limit: conversations of the text that are read.
        dtype: of the base model's weights.
        out: file to write, `.json`; beside the directions where none is given.

    Raises:
        GrasplError: the directions, the model or the text cannot be used.
    """
    found = Directions.load(directions)
    name = base_model or found.metadata.get("base_model")
    if not name:
        raise GrasplError(f"base_model: {directions} does not name it; give one")
    chosen = _chosen(found, directions, layer, direction)
    found.require_base_model(name)
    tokenizer = with_chat_template(load_tokenizer(name))
    rows = tokenized(text, tokenizer, limit=limit, max_length=1024)
    model: Any = load_base_model(name, dtype=dtype).eval()
    stream = gathered(model, rows)
    bases = {each: held.D.to(model.device) for each, held in found.layers.items()}
    vector = bases[chosen][:, direction - 1]
    spread = spread_along(stream[chosen], vector)
    ahead, behind = most_moved(model, tokenizer, rows, chosen, vector)
    asked = _prompts(rows, prompts)
    content = {
        "directions": str(directions),
        "base_model": name,
        "text": text,
        "layer": chosen,
        "direction": direction,
        "spread": spread,
        "sentence": f"direction {direction} of {chosen}; its own stream has a standard deviation of {spread:.3g} along it.",
        "lens": [each._asdict() for each in lenses(model, tokenizer, bases, stream)],
        "along": [each._asdict() for each in ahead],
        "against": [each._asdict() for each in behind],
        "steering": [
            each._asdict() for each in steering_along(model, tokenizer, asked, chosen, vector, spread)
        ],
    }
    target = out or DirectionsFiles(directions).explanation
    write_json_atomic(target, content)
    table = Table("layer", "likelier along direction 1", "less likely")
    for each in content["lens"]:
        if each["direction"] == 1:
            table.add_row(each["layer"], " ".join(each["likelier"]), " ".join(each["unlikelier"]))
    terminal = console()
    terminal.print(table)
    terminal.print(f"explanation: {target}", soft_wrap=True, highlight=False, markup=False)
    return content


def _chosen(found: Directions, path: Path, layer: str | None, direction: int) -> str:
    """Return the layer that is read and steered."""
    if not found.layers:
        raise GrasplError(
            f"directions: {path} holds sites only; make layers' directions with graspl identify --method "
            "graspl.activations.NaturalDirections --method.text FILE"
        )
    names = list(found.layers)
    chosen = names[len(names) // 2] if layer is None else layer
    if chosen not in found.layers:
        raise GrasplError(f"layer: {chosen} is none of {', '.join(names)}")
    if not 1 <= direction <= found.layers[chosen].D.shape[1]:
        raise GrasplError(f"direction: {direction} is not in 1..{found.layers[chosen].D.shape[1]}")
    return chosen


def _prompts(rows: list[TokenizedConversation], count: int) -> list[str]:
    """Return different prompts of the text, evenly spaced over it."""
    every = list(dict.fromkeys(row.prompt for row in rows if row.prompt))
    return every[:: max(1, len(every) // max(1, count))][:count]
