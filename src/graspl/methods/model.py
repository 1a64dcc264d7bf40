"""The base model with its adapter: loaded, checkpointed, compiled and sharded as the user asked."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model

from graspl.adapters import Site, decoder_layers, load_adapter, load_base_model, lora_sites, read_adapter
from graspl.adapters.packing import attend_row_by_row
from graspl.adapters.sharding import shard_frozen, shard_layers
from graspl.adapters.sites import shape_of
from graspl.adapters.support import check_inside, check_loads_back
from graspl.data.task import TaskDataModule
from graspl.errors import GrasplError
from graspl.methods.probes import check_causal, check_ids, check_longest, check_packing, check_reached
from graspl.methods.writers import check_writers

log = logging.getLogger(__name__)


@dataclass
class ModelOptions:
    """How the base model is loaded, run and measured."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the frozen weights; the adapter is float32."""
    attn_implementation: str | None = None
    """As Transformers names it; None leaves the choice to it."""
    gradient_checkpointing: bool = False
    """Save memory by computing activations again in the backward pass."""
    compile_layers: bool = False
    """Run each decoder layer through `torch.compile`: a slow start, then fewer kernels a step."""
    load_in_4bit: bool = False
    """Quantise the frozen weights (QLoRA); needs the `qlora` extra."""
    trust_remote_code: bool = False
    """Let the hub repository's own Python code run."""
    measure_kl: bool = True
    """Run the base model in every validation of a fit, for the divergence `kl`. Otherwise only the first one runs it."""


def build_model(module: Any) -> tuple[PeftModel, list[Site]]:
    """Load a LoRALitModule's base model, put its adapter on it, and shard both as the strategy says.

    Returns:
        The model, and the adapter's sites, whose A is frozen where the start says so.

    Raises:
        GrasplError: the model or the adapter cannot be loaded, or is of a kind that graspl does not support.
    """
    options: ModelOptions = module.options
    base = load_base_model(
        module.base_model,
        dtype=options.dtype,
        attn_implementation=options.attn_implementation,
        load_in_4bit=options.load_in_4bit,
        trust_remote_code=options.trust_remote_code,
    )
    if options.gradient_checkpointing:
        base.activation_checkpointing_enable({"use_reentrant": False})
        # The frozen embedding gives the first layer an input without gradient, and checkpointing would drop it
        base.enable_input_require_grads()
    model = _adapted(module, base)
    if options.compile_layers:
        for layer in decoder_layers(model).values():
            # The forward function alone, so that constraints' and FSDP's hooks run as they are; names stay
            layer.forward = torch.compile(layer.forward, dynamic=True)
    if module.device_mesh is not None:
        shard_layers(model, module.device_mesh["data_parallel"])
    if module.is_flat_sharded:
        if module.trainer.precision == "32-true" and base.dtype != torch.float32:
            log.warning(
                "trainer.precision: FSDP1 turns %s weights into float32 at 32-true; set it to bf16-mixed",
                base.dtype,
            )
        shard_frozen(model, module.trainer.strategy.root_device)
    sites = lora_sites(model)
    for site in sites:
        site.A.requires_grad_(module.trains_A)
    return model, sites


def prepare_training(module: Any) -> None:
    """Put a module's model in training mode; for packs, let a CPU attend row by row, and check that rows are apart."""
    module.model.train()
    packed = getattr(module.trainer.datamodule, "packing", False)
    # torch.compile would break a layer in two where rows are counted
    if packed and module.device.type == "cpu" and not module.options.compile_layers:
        attend_row_by_row(module.model.get_base_model())
    if not isinstance(module.trainer.datamodule, TaskDataModule):  # Batches of the user's own
        return
    check_ids(module)
    check_causal(module)
    check_reached(module)
    if packed:
        check_packing(module)
    check_longest(module)
    if module.directions is not None:
        check_writers(module)


def _adapted(module: Any, base: Any) -> PeftModel:
    if module.adapter is not None:
        _check_match(module, base)
        return load_adapter(base, module.adapter, is_trainable=True)
    module.lora.require_fit(base)
    try:
        with warnings.catch_warnings():
            # PEFT reads an attribute that Transformers has renamed
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            # It sets what it warns of itself; experts are refused below
            warnings.filterwarnings("ignore", ".*fan_in_fan_out is set to False")
            warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match")
            model = get_peft_model(base, module.lora.to_peft())
    except ValueError as error:
        raise GrasplError(f"lora: {error}") from error
    check_inside(model, base)
    check_loads_back(model)
    # PEFT would record where the files lie on this machine
    model.peft_config["default"].base_model_name_or_path = module.base_model
    return model  # type: ignore[return-value]


def _check_match(module: Any, base: Any) -> None:
    """Refuse in clear words what PEFT would load or fail on."""
    adapter, modules = read_adapter(str(module.adapter)), dict(base.named_modules())
    if adapter.base_model != module.base_model:
        log.warning(
            "adapter: %s was trained on %s, not on %s", adapter.path, adapter.base_model, module.base_model
        )
    for site in adapter.sites:
        found = modules.get(site.name)
        shape = shape_of(found)
        if shape != site.shape:
            both = f"{site.shape} there, {shape or 'missing'} in {module.base_model}"
            raise GrasplError(f"model.adapter: {module.adapter} is of another model: {site.name} is {both}")
