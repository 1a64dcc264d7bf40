"""LoRA adapters as matrices: sites, spectra, reliance, PEFT folders in, and the base models they sit on.

This room may import only `graspl.errors`. Start reading in `sites.py`.
"""

from graspl.adapters.base_model import load_adapter, load_base_model, load_tokenizer, resolve_base_model
from graspl.adapters.files import AdapterFolder, LiveModel, read_adapter
from graspl.adapters.options import LoraOptions
from graspl.adapters.reliance import pair_reliance, read_reliance, update_norm, write_reliance
from graspl.adapters.residual import decoder_layers, layer_names, writers_by_layer
from graspl.adapters.sites import Site, lora_sites
from graspl.adapters.spectrum import ThinSVD, thin_svd
from graspl.adapters.switch import adapter_off

__all__ = [
    "AdapterFolder", "LiveModel", "LoraOptions", "Site", "ThinSVD", "adapter_off", "decoder_layers",
    "layer_names", "load_adapter", "load_base_model", "load_tokenizer", "lora_sites", "pair_reliance",
    "read_adapter", "read_reliance", "resolve_base_model", "thin_svd", "update_norm", "write_reliance",
    "writers_by_layer",
]  # fmt: skip
