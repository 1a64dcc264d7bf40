"""Whether graspl knows by name all that an adapter writes to the residual stream."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from graspl.adapters import decoder_layers
from graspl.adapters.residual import WRITERS
from graspl.adapters.sharding import plain_name
from graspl.data.batches import PaddedCollator
from graspl.errors import GrasplError
from graspl.methods.probes import LENGTH, logits_of, pad_id, row_of

WRITES = 0.5  # Cosine from which a site writes to the stream
PUSH = 0.1  # How far it is pushed, over the stream's spread


@torch.no_grad()
def check_writers(module: Any) -> None:
    """Push what adapted sites put out, and see whether the stream behind their layer moves the same way.

    Whoever writes to the residual stream adds to it, so the push comes through as it is; through other maps it does not. A
    site is tried in the first layer that has it.

    Raises:
        GrasplError: a site writes to the stream under an unknown name, so constraints would not hold it.
    """
    layers = decoder_layers(module.model)
    modules = {plain_name(name): each for name, each in module.model.get_base_model().named_modules()}
    row = row_of(module.trainer.datamodule.train_conversations()[0].input_ids[:LENGTH])
    batch, tried = PaddedCollator(pad_id(module))([row]), set()
    for site in module.sites:
        layer = next((name for name in layers if site.name.startswith(f"{name}.")), None)
        place = site.name.removeprefix(layer or "")
        known = site.name.rpartition(".")[2] in WRITERS
        if site.shape[0] != _hidden(module) or (layer is not None and (place in tried or known)):
            continue
        tried.add(place)
        # Before the first layer whatever is as wide as the stream leads into it
        if layer is None or _alike(module, batch, layers[layer], modules[site.name]) > WRITES:
            why = (
                "writes to the residual stream, under a name by which graspl would neither hold nor count it"
            )
            fix = f"leave it out: lora.exclude_modules: '.*{re.escape(place)}'"
            raise GrasplError(f"lora.target_modules: {site.name} {why}; {fix}")


def _hidden(module: Any) -> int:
    return int(module.model.get_base_model().config.get_text_config().hidden_size)


def _alike(module: Any, batch: dict[str, Any], layer: nn.Module, pushed: nn.Module) -> float:
    """Return the cosine between a random push of a module's output and how the stream behind the layer moves."""
    found: list[Tensor] = []
    push: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        found.append((output[0] if isinstance(output, tuple | list) else output).float())

    def add(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        random = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output.device)
        push.append(PUSH * found[0].std() * random.view_as(output))
        return output + push[0].to(output.dtype)

    handles = [layer.register_forward_hook(keep)]
    try:
        logits_of(module, batch)
        handles.append(pushed.register_forward_hook(add))
        logits_of(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not push:  # The module is not run
        return 0.0
    if push[0].shape != found[0].shape:
        shape = tuple(found[0].shape)
        raise GrasplError(
            f"base_model: the stream behind its layers is {shape}, not (rows, tokens, hidden), which this method needs"
        )
    return float(nn.functional.cosine_similarity((found[1] - found[0]).flatten(), push[0].flatten(), dim=0))
