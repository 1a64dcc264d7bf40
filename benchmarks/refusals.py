"""How soon a tiny model, adapter or row is refused: `python benchmarks/refusals.py`; writes results/refusals.json.

Each is refused by a fit as a user starts it, after the imports; the time ends where the one line is there.
"""

import json
import logging
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "benchmarks" / "real")]

from conftest import CHAT_ROWS  # noqa: E402
from families import family_folder  # noqa: E402
from fits import adam, train  # noqa: E402
from matrix import CELLS, REFUSED, model_of  # noqa: E402
from record import record, this_machine  # noqa: E402

from graspl import LoRALitModule  # noqa: E402
from graspl.adapters import LoraOptions  # noqa: E402
from graspl.errors import GrasplError  # noqa: E402
from graspl.runs import write_json_atomic  # noqa: E402

DOWN = "model.layers.0.mlp.down_proj.weight"


def of_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Return a function that changes the weights of a model's folder."""

    def edit(base: Path) -> None:
        weights = load_file(base / "model.safetensors")
        change(weights)
        save_file(weights, base / "model.safetensors", {"format": "pt"})

    return edit


WEIGHTS = {
    "a weight is missing": of_weights(lambda weights: weights.pop(DOWN)),
    "a weight is not a number": of_weights(lambda weights: weights[DOWN].fill_(float("nan"))),
    "config.json says another size": lambda base: (base / "config.json").write_text(
        (base / "config.json").read_text().replace('"intermediate_size": 48', '"intermediate_size": 40')
    ),
}
ADAPTERS = {
    "target modules that are not there": LoraOptions(target_modules=["nowhere"]),
    "a rank above the weights'": LoraOptions(r=4096),
}
ROWS = {
    "a row without an answer": {"messages": [{"role": "user", "content": "how"}]},
    "a row that is too long": {"prompt": "take " * 5000, "completion": "yes"},
}


def seconds(base: Path, folder: Path, *, lora: LoraOptions | None = None, row: object = None) -> float:
    """Return how long a fit takes to be refused."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(each) + "\n" for each in [*CHAT_ROWS, *([row] if row else [])]))
    before = time.perf_counter()
    try:
        train(
            LoRALitModule(str(base), lora=lora or LoraOptions(), optimizer=adam),
            rows=rows,
            folder=folder / "run",
        )
    except GrasplError as error:
        taken = time.perf_counter() - before
        print(f"{taken:.2f} s: {error}"[:160], flush=True)
        return taken
    raise AssertionError("it is not refused")


def main() -> None:
    """Time each refusal once."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        plain = family_folder("llama", Path(place) / "llama", model_of("llama"))
        seconds(
            plain, Path(place), row=ROWS["a row without an answer"]
        )  # The first one loads what is imported late
        for kind in (kind for kind, cells in REFUSED.items() if cells == CELLS):
            found[kind] = seconds(family_folder(kind, Path(place) / kind, model_of(kind)), Path(place))
        for name, edit in WEIGHTS.items():
            base = shutil.copytree(plain, Path(place) / name)
            edit(base)
            found[name] = seconds(base, Path(place))
        found |= {name: seconds(plain, Path(place), lora=lora) for name, lora in ADAPTERS.items()}
        found |= {name: seconds(plain, Path(place), row=row) for name, row in ROWS.items()}
    figures = {
        "seconds": {name: round(taken, 2) for name, taken in found.items()},
        "longest": round(max(found.values()), 2),
    }
    figures["kinds"] = len(found)
    note = "seconds from the start of a fit, after imports, to the one line"
    write_json_atomic(
        ROOT / "results" / "refusals.json",
        record("python benchmarks/refusals.py", this_machine(), [0], figures, note),
    )


if __name__ == "__main__":
    main()
