"""Base models and their tokenizers, by hub name, folder, or `organism` (the one that comes with graspl)."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from graspl.adapters.claims import check_claims, read_config
from graspl.errors import GrasplError, foreign, reason_of
from graspl.local import as_loaded, check_local_model, is_gguf
from graspl.quiet import without_bars

log = logging.getLogger(__name__)

ORGANISM = "organism"  # Name of the embedded model with a known hidden factor


def resolve_base_model(base_model: str) -> str:
    """Return what Transformers loads: a folder's path, or the hub name as it is.

    Args:
        base_model: `organism`, a folder in Transformers format, a GGUF file, or a hub name (`org/name` or `name`).

    Raises:
        GrasplError: the path is not a folder, or the folder holds no Transformers model.
    """
    if base_model == ORGANISM:
        return str(files("graspl") / "organism" / "default")
    path = Path(base_model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise GrasplError(f"base_model: {base_model} has no config.json; give a Transformers folder")
        return str(path)
    check_local_model(base_model)
    if not is_gguf(base_model):
        return base_model
    if find_spec("gguf") is None:
        raise GrasplError(f"base_model: {base_model} is a GGUF file; pip install 'graspl[gguf]' to read it")
    return str(path)


def load_tokenizer(base_model: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; without a padding token of its own, the end-of-sequence token pads.

    Args:
        base_model: as in `resolve_base_model`.
        trust_remote_code: let the hub repository's own Python code run.

    Raises:
        GrasplError: there is no such model, or it has no tokenizer.
    """
    source, packed = as_loaded(resolve_base_model(base_model))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code, **packed)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # Of Rust code
            raise
        raise GrasplError(_not_loaded(base_model, "tokenizer", error)) from error
    if not isinstance(tokenizer.model_max_length, int | float):
        raise GrasplError(
            f"base_model: model_max_length in {base_model}/tokenizer_config.json is no number; correct it"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise GrasplError(f"base_model: {base_model} needs a pad or eos token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base_model(
    base_model: str,
    *,
    dtype: str = "auto",
    attn_implementation: str | None = None,
    load_in_4bit: bool = False,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a frozen causal language model in training mode.

    Args:
        base_model: as in `resolve_base_model`.
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        attn_implementation: `eager`, `sdpa`, `flash_attention_2`, ...; None leaves the choice to Transformers.
        load_in_4bit: quantise the frozen weights to NF4 (QLoRA); needs the `qlora` extra.
        trust_remote_code: let the hub repository's own Python code run.

    Raises:
        GrasplError: the model cannot be loaded, or its files do not hold exactly the weights that it computes with.
    """
    source = resolve_base_model(base_model)
    config = read_config(base_model, source, trust_remote_code=trust_remote_code)
    check_claims(base_model, source, config, trust_remote_code=trust_remote_code)
    source, packed = as_loaded(source)
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code, **packed}
    if packed:
        options |= _unpacked(base_model, load_in_4bit)
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if load_in_4bit:
        options |= _nf4(dtype)
    try:
        quiet = without_bars() if packed else nullcontext()
        with warnings.catch_warnings(), _without_load_report(), quiet:
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            # Transformers' types do not know of the second value
            loading: Any = AutoModelForCausalLM.from_pretrained(
                source,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # Refused below, by name
                **options,
            )
            model, loaded = loading
    except Exception as error:
        raise GrasplError(_not_loaded(base_model, "model", error)) from error
    _check_weights(base_model, model, loaded)
    if (
        packed and getattr(model, "hf_quantizer", None) is not None
    ):  # It would keep the model from being saved
        model.hf_quantizer.remove_quantization_config(model)
    if load_in_4bit:
        _keep_unpacked(model)
    model.requires_grad_(False)
    # from_pretrained returns eval mode, in which dropout is off, and Lightning does not change it
    return model.train()


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Leave out Transformers' table of weights that were missing or left over; `_check_weights` says it in one line."""
    writer = logging.getLogger("transformers.modeling_utils")

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    writer.addFilter(keep)
    try:
        yield
    finally:
        writer.removeFilter(keep)


def _check_weights(base_model: str, model: PreTrainedModel, loaded: dict[str, Any]) -> None:
    """Refuse weights that Transformers would draw at random or leave out of a layer; name those that it leaves out elsewhere.

    Raises:
        GrasplError: the files lack a weight, have one of another shape, or have one more in a layer.
    """
    name, fix = type(model).__name__, "give the whole model, with the config.json that it was saved with"
    missing, left_over = sorted(loaded["missing_keys"]), sorted(loaded["unexpected_keys"])
    if loaded["mismatched_keys"]:
        key, found, wanted = sorted(loaded["mismatched_keys"])[0]
        shapes = f"is {tuple(found)} in the files and {tuple(wanted)} by config.json"
        raise GrasplError(f"base_model: {base_model}: {key} {shapes}; {fix}")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise GrasplError(
            f"base_model: the files of {base_model} lack {missing[0]}{more}, which {name} computes with; {fix}"
        )
    numbered = (each for each, _ in model.named_modules() if each.rpartition(".")[2].isdigit())
    layers = tuple(f"{each}." for each in numbered)
    inside = [key for key in left_over if key.startswith(layers)]
    if inside:
        raise GrasplError(
            f"base_model: {base_model} holds {inside[0]}, which {name} does not compute with; {fix}"
        )
    if left_over:
        parts = ", ".join(sorted({key.rpartition(".")[0] for key in left_over})[:3])
        log.warning("base_model: %s does not use %d weights of its files (%s)", name, len(left_over), parts)


def load_adapter(base: PreTrainedModel, folder: str, *, is_trainable: bool = False) -> PeftModel:
    """Put an adapter from disk on a base model.

    Args:
        base: of `load_base_model`; changed in place.
        folder: in PEFT format, already checked (`read_adapter`).
        is_trainable: keep the adapter's parameters trainable.

    Raises:
        GrasplError: the adapter is of another model, or lacks factors that its configuration names.
    """
    with warnings.catch_warnings():
        # PEFT reads an attribute that Transformers has renamed
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        warnings.filterwarnings("error", "Found missing adapter keys")
        fix = "give the adapter whole, on the model it was trained on"
        with foreign(f"adapter: {folder}", "does not fit the base model", fix):
            return PeftModel.from_pretrained(base, folder, is_trainable=is_trainable)


def _unpacked(base_model: str, load_in_4bit: bool) -> dict[str, Any]:
    """Return the options by which a GGUF file is read into plain weights, which an adapter can be put on."""
    from transformers import GgufConfig

    if load_in_4bit:
        fix = "give a Transformers folder, or leave the option out"
        raise GrasplError(f"model.load_in_4bit: {base_model} is a GGUF file, which is read unpacked; {fix}")
    return {"quantization_config": GgufConfig(dequantize=True)}


def _nf4(dtype: str) -> dict[str, Any]:
    """Return the options of QLoRA (arXiv:2305.14314): NF4 weights, double quantisation."""
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else getattr(torch, dtype),
    )
    return {"quantization_config": config}


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from reordering four-bit weights.

    On a CPU with AVX512-BF16 the first evaluation would reorder them, after which they pass no gradient.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _not_loaded(base_model: str, what: str, error: BaseException) -> str:
    reason = reason_of(error)
    if reason.startswith("Unrecognized configuration class"):
        reason = "its kind has no causal language model in Transformers; give a model of text alone"
    return f"base_model: the {what} of {base_model} cannot be loaded: {reason}"
