"""What directions mean: the tokens they favour, the texts far along one, and the answers when steered along it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from graspl.activations.meaning import lenses, most_moved, steering_along
from graspl.activations.steering import spread_along
from graspl.activations.streams import gathered, tokenized
from graspl.adapters.base_model import load_base_model, load_tokenizer
from graspl.data.tokens import with_chat_template
from graspl.directions.basis import Directions
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt
from graspl.runs import DirectionsFiles, write_json_atomic


@dataclass(frozen=True)
class ExplainOptions:
    """How directions are explained."""

    text: str | None = None
    """Unlabelled conversations by many writers; needed to explain. Their prompts are answered."""
    layer: str | None = None
    """Layer whose direction is read on the text and steered; the middle one by default."""
    direction: PositiveInt = 1
    """Which direction of that layer, from 1."""
    prompts: PositiveInt = 4
    """How many prompts are answered: as the model is, and steered both ways."""
    limit: PositiveInt = 256
    """How many conversations of the text are read."""


class Explanation(NamedTuple):
    """What directions mean."""

    # As in the file; `graspl report` shows it for a run that was evaluated with these directions.
    content: dict[str, Any]
    path: Path  # The file, `<directions>.explanation.json`

    def render(self) -> Iterator[Table | str]:
        """Yield each layer's tokens along its first direction, and the file."""
        table = Table("layer", "likelier along direction 1", "less likely")
        for each in self.content["lens"]:
            if each["direction"] == 1:
                table.add_row(each["layer"], " ".join(each["likelier"]), " ".join(each["unlikelier"]))
        yield table
        yield f"explanation: {self.path}"


def explain(path: Path, base_model: str, options: ExplainOptions, *, dtype: str = "auto") -> Explanation:
    """Explain a file of layers' directions with the base model, and write the explanation beside it; `text` is needed.

    Raises:
        GrasplError: the directions, the model or the text cannot be used.
    """
    found = Directions.load(path)
    layer = _chosen(found, path, options)
    found.require_base_model(base_model)
    assert options.text is not None
    tokenizer = with_chat_template(load_tokenizer(base_model))
    rows = tokenized(options.text, tokenizer, limit=options.limit, max_length=1024)
    if len(rows) < 2:
        raise GrasplError(f"explain.text: {options.text} holds one row, which has no spread; give more")
    model: Any = load_base_model(base_model, dtype=dtype).eval()
    stream = gathered(model, rows)
    bases = {name: held.D.to(model.device) for name, held in found.layers.items()}
    vector = bases[layer][:, options.direction - 1]
    spread = spread_along(stream[layer], vector)
    ahead, behind = most_moved(model, tokenizer, rows, layer, vector)
    prompts = list(dict.fromkeys(row.prompt for row in rows if row.prompt))
    # Evenly spaced over the text
    prompts = prompts[:: max(1, len(prompts) // options.prompts)][: options.prompts]
    steered = steering_along(model, tokenizer, prompts, layer, vector, spread)
    content = {
        "directions": str(path),
        "base_model": base_model,
        "text": options.text,
        "layer": layer,
        "direction": options.direction,
        "spread": spread,
        "sentence": f"Direction {options.direction} of {layer}. The base model's own stream has a standard deviation of "
        f"{spread:.3g} along it.",
        "lens": [each._asdict() for each in lenses(model, tokenizer, bases, stream)],
        "along": [each._asdict() for each in ahead],
        "against": [each._asdict() for each in behind],
        "steering": [each._asdict() for each in steered],
    }
    target = DirectionsFiles(path).explanation
    write_json_atomic(target, content)
    return Explanation(content, target)


def _chosen(found: Directions, path: Path, options: ExplainOptions) -> str:
    if not found.layers:
        raise GrasplError(f"{path}: holds sites only; identify with graspl.activations.NaturalDirections")
    names = list(found.layers)
    layer = options.layer or names[len(names) // 2]
    if layer not in found.layers:
        raise GrasplError(f"explain.layer: {layer} is none of {', '.join(names)}")
    k = found.layers[layer].D.shape[1]
    if options.direction > k:
        raise GrasplError(f"explain.direction: {options.direction} is not in 1..{k}")
    return layer
