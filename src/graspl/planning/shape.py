"""A model's sizes from its configuration: it is built on `meta`, so no weight is read or held."""

import math
import warnings
from dataclasses import dataclass

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from graspl.adapters import LoraOptions, decoder_layers, resolve_base_model
from graspl.adapters.claims import read_config
from graspl.adapters.support import check_inside
from graspl.errors import GrasplError, foreign


@dataclass(frozen=True)
class Parameter:
    """One parameter's size."""

    shape: tuple[int, ...]  # As in the model
    bytes_each: int  # Of a number
    in_layer: bool  # Whether it belongs to a decoder layer
    quantised: bool  # Whether four-bit loading quantises it: the weights of linear layers other than the head

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a base model and of its adapter."""

    frozen: list[Parameter]  # The base model's
    adapter: list[Parameter]  # The adapter's, in float32
    hidden: int  # Width of the residual stream
    layers: int  # Decoder layers

    @property
    def frozen_numbers(self) -> int:
        """Parameters of the base model."""
        return sum(each.numbers for each in self.frozen)

    @property
    def adapter_numbers(self) -> int:
        """Parameters of the adapter."""
        return sum(each.numbers for each in self.adapter)


def model_shape(base_model: str, lora: LoraOptions, *, dtype: str = "bfloat16") -> ModelShape:
    """Return a model's sizes.

    Args:
        base_model: folder with a `config.json`, hub name, or `organism`.
        lora: the adapter's options.
        dtype: of the frozen weights.

    Raises:
        GrasplError: the configuration cannot be read, or a fit would refuse the adapter.
    """
    model = _on_meta(base_model, lora, dtype)
    base = model.get_base_model()
    check_inside(model, base)
    layers = decoder_layers(model)
    head = base.get_output_embeddings()  # type: ignore[operator]
    linear = {
        id(module.weight)
        for module in base.modules()
        if isinstance(module, nn.Linear) and module is not head and not module.weight.requires_grad
    }
    inside = {id(p) for layer in layers.values() for p in layer.parameters()}
    every = [
        (p.requires_grad, Parameter(tuple(p.shape), p.element_size(), id(p) in inside, id(p) in linear))
        for p in model.parameters()
    ]
    return ModelShape(
        [each for trained, each in every if not trained],
        [each for trained, each in every if trained],
        int(base.config.get_text_config().hidden_size),  # type: ignore[union-attr]
        len(layers),
    )


def _on_meta(base_model: str, lora: LoraOptions, dtype: str) -> PeftModel:
    config = read_config(base_model, resolve_base_model(base_model))
    what, fix = f"base_model: {base_model}", "correct its config.json"
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with foreign(what, "cannot be built from its configuration", fix):
            base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        try:
            lora.require_fit(base)
            return get_peft_model(base.requires_grad_(False), lora.to_peft())  # type: ignore[return-value]
        except ValueError as error:
            raise GrasplError(f"base_model or lora: {error}") from error
