"""A model's shape from its configuration: built on `meta`, so that no weight is read or held."""

import math
import warnings
from dataclasses import dataclass

import torch
from peft import PeftModel, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from graspl.adapters.base_model import resolve_base_model
from graspl.adapters.forward import model_logits
from graspl.adapters.loss import summed_loss
from graspl.adapters.options import LoraOptions
from graspl.adapters.residual import decoder_layers
from graspl.errors import GrasplError
from graspl.planning.live import LiveBytes, fused_attention


@dataclass(frozen=True)
class Parameter:
    """One parameter's size."""

    shape: tuple[int, ...]
    """As in the model."""
    bytes_each: int
    """Of a number."""
    layer: int | None
    """Number of the decoder layer that it is in; None outside."""
    quantised: bool
    """Whether four-bit loading would quantise it: the weights of linear layers other than the head."""

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a base model and of its adapter."""

    frozen: list[Parameter]
    """The base model's."""
    adapter: list[Parameter]
    """The adapter's, in float32."""
    hidden: int
    """Width of the residual stream."""
    layers: int
    """Decoder layers."""

    @property
    def frozen_numbers(self) -> int:
        """Parameters of the base model."""
        return sum(each.numbers for each in self.frozen)

    @property
    def adapter_numbers(self) -> int:
        """Parameters of the adapter."""
        return sum(each.numbers for each in self.adapter)


@dataclass(frozen=True)
class StepCost:
    """One micro-batch, forward and backward."""

    peak_bytes: int
    """Highest number of bytes alive beyond parameters and optimizer state: activations, gradients, temporaries."""
    flops: int
    """Floating-point operations of its matrix products, attention's not among them."""


def model_shape(base_model: str, lora: LoraOptions, *, dtype: str = "bfloat16") -> ModelShape:
    """Return a model's sizes.

    Args:
        base_model: folder with a `config.json`, hub name, or `organism`.
        lora: the adapter's options.
        dtype: of the frozen weights.

    Raises:
        GrasplError: there is no such configuration, or the options fit no layer.
    """
    model = _on_meta(base_model, lora, dtype, checkpointing=False)
    layers = decoder_layers(model)
    base = model.get_base_model()
    head = base.get_output_embeddings()  # type: ignore[operator]
    linear = {
        id(module.weight)
        for module in base.modules()
        if isinstance(module, nn.Linear) and module is not head and not module.weight.requires_grad
    }
    where = {id(p): number for number, layer in enumerate(layers.values()) for p in layer.parameters()}
    every = [
        (p.requires_grad, Parameter(tuple(p.shape), p.element_size(), where.get(id(p)), id(p) in linear))
        for p in model.parameters()
    ]
    return ModelShape(
        [each for trained, each in every if not trained],
        [each for trained, each in every if trained],
        int(base.config.hidden_size),  # type: ignore[union-attr]
        len(layers),
    )


def step_cost(
    base_model: str,
    lora: LoraOptions,
    *,
    rows: int,
    length: int,
    dtype: str = "bfloat16",
    checkpointing: bool = False,
) -> StepCost:
    """Run one micro-batch on `meta` and count.

    Args:
        base_model: as in `model_shape`.
        lora: the adapter's options.
        rows: of the micro-batch.
        length: tokens a row.
        dtype: of the frozen weights.
        checkpointing: whether activations are computed again in the backward pass.

    Raises:
        GrasplError: as in `model_shape`.
    """
    model = _on_meta(base_model, lora, dtype, checkpointing=checkpointing)
    with torch.device("meta"):
        batch = {
            "input_ids": torch.empty(rows, length, dtype=torch.long),
            # Whole, as Transformers makes it of padded rows: it would have to look at the padding's values
            "attention_mask": torch.empty(rows, 1, length, length, dtype=torch.bool),
        }
        labels = torch.empty(rows, length, dtype=torch.long)
    # One after the other: the counter of operations holds tensors that would be free
    live, flops = LiveBytes(), FlopCounterMode(display=False)
    for counter in (live, flops):
        with fused_attention(), counter:
            total, _ = summed_loss(model_logits(model, batch), labels)
            total.backward()
        model.zero_grad()
    return StepCost(live.peak, flops.get_total_flops())


def _on_meta(base_model: str, lora: LoraOptions, dtype: str, *, checkpointing: bool) -> PeftModel:
    try:
        config = AutoConfig.from_pretrained(resolve_base_model(base_model))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise GrasplError(
            f"base_model: the configuration of {base_model} cannot be read: {reason}"
        ) from error
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
            )
            base.requires_grad_(False)
            if checkpointing:
                base.activation_checkpointing_enable({"use_reentrant": False})
                base.enable_input_require_grads()
            model = get_peft_model(base, lora.to_peft())
    except ValueError as error:
        raise GrasplError(f"base_model or lora: {error}") from error
    return model.train()  # type: ignore[return-value]
