"""Adapters that PEFT would make and graspl refuses, by their structure."""

from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

from graspl.adapters.sharding import plain_name
from graspl.adapters.sites import lora_sites
from graspl.errors import GrasplError


def check_inside(model: PeftModel, base: Any) -> None:
    """Refuse an adapter on what is no part of the language model: towers for images and sound, and what joins them."""
    names = {id(each): name for name, each in base.named_modules()}
    decoder = names.get(id(base.get_decoder()), "")
    head = names.get(id(base.get_output_embeddings()))
    outside = [
        site.name for site in lora_sites(model) if not site.name.startswith(decoder) and site.name != head
    ]
    if outside:
        parts = sorted({_differing(name, decoder) for name in outside})
        fix = f"set lora.exclude_modules: '.*({'|'.join(parts)}).*'"
        raise GrasplError(f"lora.target_modules: {outside[0]} is no part of the language model; {fix}")


def check_loads_back(model: PeftModel) -> None:
    """Refuse an adapter that PEFT would save and not load back, because it renames a module of the family wrongly."""
    factors = get_peft_model_state_dict(model, save_embedding_layers=False)
    lost = [key for key in set_peft_model_state_dict(model, factors).missing_keys if ".lora_" in key]
    if lost:
        name = plain_name(lost[0].removeprefix("base_model.model.")).partition(".lora_")[0]
        part = next(each for each in reversed(name.split(".")[:-1]) if not each.isdigit())
        fix = f"leave it out: lora.exclude_modules: '.*{part}.*'"
        raise GrasplError(f"lora.target_modules: PEFT cannot load back an adapter on {name}; {fix}")


def _differing(name: str, other: str) -> str:
    """Return the first part of a module's name that another name does not have."""
    parts, others = name.split("."), other.split(".")
    return next((part for part, each in zip(parts, others, strict=False) if part != each), parts[-1])
