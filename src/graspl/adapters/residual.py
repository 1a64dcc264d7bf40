"""The residual stream: its decoder layers, and which sites write to it or read from it."""

from collections.abc import Sequence
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from graspl.adapters.sharding import plain_name
from graspl.adapters.sites import Site
from graspl.errors import GrasplError

# Last part of the names of linear maps that write to the residual stream, over the families in Transformers.
WRITERS = ("o_proj", "out_proj", "dense", "c_proj", "wo", "down_proj", "dense_4h_to_h", "fc2", "fc_out", "w2")


def decoder_layers(model: PeftModel | PreTrainedModel) -> dict[str, nn.Module]:
    """Return the decoder layers by their names in the base model, e.g. `model.layers.0`, from first to last.

    Raises:
        GrasplError: the model has no list of its decoder layers.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    names = {id(module): plain_name(name) for name, module in base.named_modules()}
    count = base.config.get_text_config().num_hidden_layers
    decoder: nn.Module = base.get_decoder()
    # Families name the list layers, h or blocks, and some hold it one module further down
    lists = (each for each in decoder.modules() if isinstance(each, nn.ModuleList) and len(each) == count)
    layers = next(lists, None)
    if layers is None:
        raise GrasplError(
            f"base_model: {type(base).__name__} has no list of {count} decoder layers, which this method needs"
        )
    return {names[id(layer)]: layer for layer in layers}


def layer_names(sites: Sequence[Site]) -> list[str]:
    """Return the layers that sites lie in, in order; `model.layers.0.mlp.up_proj` lies in `model.layers.0`."""
    found = {_layer_of(site.name) for site in sites}
    return sorted((name for name in found if name), key=lambda name: int(name.rpartition(".")[2]))


def writers_by_layer(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Return the sites that write to the residual stream (see `WRITERS`), by layer, from the first layer to the last."""
    found: dict[str, list[Site]] = {name: [] for name in layer_names(sites)}
    for site in sites:
        layer = _layer_of(site.name)
        if layer and site.name.rpartition(".")[2] in WRITERS:
            found[layer].append(site)
    return found


def _layer_of(name: str) -> str:
    parts = name.split(".")
    number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return "" if number is None else ".".join(parts[: number + 1])
