"""What a model's configuration demands, compared with what its files hold before any memory is taken."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from graspl.errors import GrasplError, foreign
from graspl.local import as_loaded

MOST_LAYERS = 1_000  # The deepest models have about 130
MOST_PARTS = 10_000  # Heads of a layer, and experts; hundreds at most
# Numbers that may be missing from the files, so that a weight that is missing or of another shape is told by its name
SPARE = 10**7
PACKED = 8  # Numbers of four bits in one of an integer tensor
MOST_BUFFERS = 2**31  # Bytes that a model may make beside its weights


def read_config(base_model: str, source: str, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Return a model's configuration.

    Args:
        base_model: as the user named it.
        source: folder or hub name.
        trust_remote_code: let the hub repository's own Python code run.

    Raises:
        GrasplError: it cannot be read, or asks for more layers, heads or experts than any model has.
    """
    with foreign(
        f"base_model: {base_model}",
        "cannot read its configuration",
        "give a model that Transformers can load",
    ):
        folder, packed = as_loaded(source)
        content, _ = PreTrainedConfig.get_config_dict(folder, **packed)
        for name, value in _counts(content):
            most = MOST_LAYERS if "layer" in name else MOST_PARTS
            if value > most:
                raise GrasplError(
                    f"base_model: {base_model}: {name} is {value} in config.json, above the limit of {most}; correct it"
                )
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **packed)


def _counts(content: Any) -> Iterator[tuple[str, int]]:
    """Yield the numbers of layers, heads and experts in a configuration, and in those within it."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, int) and any(part in str(name) for part in ("layer", "head", "expert")):
            if "dim" not in str(name) and "size" not in str(name):
                yield str(name), value
        else:
            yield from _counts(value)


def check_claims(base_model: str, source: str, config: Any, *, trust_remote_code: bool = False) -> None:
    """Refuse a model folder whose configuration demands far more numbers than its files hold.

    Transformers would draw the missing ones at random, for which it takes the memory first. The model is built on `meta`,
    which takes none.

    Raises:
        GrasplError: it does, or a file of weights is broken.
    """
    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    if not files:  # Of a hub model, or a pickle that is refused later
        return
    held = sum(_held(file) for file in files)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception:  # noqa: BLE001 - loading the model raises it again, and says it
        return
    wanted = sum(p.numel() for p in model.parameters())
    made = sum(each.numel() * each.element_size() for each in model.buffers())
    if wanted > 2 * held + SPARE or made > max(MOST_BUFFERS, 8 * held):
        raise GrasplError(
            f"base_model: {base_model}: config.json demands {wanted + made:,} numbers, its files hold {held:,}; "
            "give the whole model, with the config.json that it was saved with"
        )


def _held(file: Path) -> int:
    """Return how many numbers a file of weights holds, by its header; whole numbers may pack several."""
    if not file.is_file():
        raise GrasplError(f"base_model: {file} is no file; give the whole model")
    with (
        foreign(f"base_model: {file}", "not readable as safetensors", "copy or save the model again"),
        safe_open(file, framework="pt") as opened,
    ):
        total = 0
        for name in opened.keys():  # noqa: SIM118 - it is no mapping
            tensor = opened.get_slice(name)
            numbers = 1
            for size in tensor.get_shape():
                numbers *= size
            total += numbers * (PACKED if str(tensor.get_dtype()).startswith(("I", "U")) else 1)
        return total
