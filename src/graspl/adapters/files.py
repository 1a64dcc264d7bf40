"""PEFT adapter folders: reading one without its base model, and writing one."""

import hashlib
import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from graspl.adapters.checkpoint import is_checkpoint, read_checkpoint
from graspl.adapters.sites import Site
from graspl.errors import GrasplError, foreign

log = logging.getLogger(__name__)

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
LARGEST_ALPHA = 1e6  # Beyond it the update of any trained adapter would overflow in float32
LONGEST_PATTERN, MOST_REPEATS = 500, 4  # Characters, and parts that may be as long as they like
_FACTOR = re.compile(r"^base_model\.model\.(?P<site>.+)\.lora_(?P<factor>[AB])\.weight$")
# With these the update at the start is not zero or the saved B A is not the change of the weights
_SHIFTED_STARTS = ("pissa", "olora", "loftq", "corda", "lora_ga")
# Fields of an adapter's configuration that graspl has verified, or that change nothing in the weights
VERIFIED = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "eva_config", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
# Starts with a zero update, and the one of random B, whose B A is the whole change all the same
VERIFIED_STARTS = (True, False, None, "gaussian", "eva")


@dataclass(frozen=True)
class LiveModel:
    """A model in memory, for identifications that run it."""

    model: PeftModel  # With the adapter on it; who runs it puts mode and adapter back
    tokenizer: PreTrainedTokenizerBase  # Its own, with a chat template
    rows: Sequence[Any]  # What the adapter is trained on: tokenized conversations
    text: Sequence[Any]  # Unlabelled text of other topics, tokenized; empty where the task has none


@dataclass(frozen=True)
class AdapterFolder:
    """A PEFT LoRA adapter, read from disk or still in training."""

    path: Path  # The folder; of an adapter in training, the run's
    base_model: str  # Name or folder of the model it was trained on, as PEFT recorded it
    sha256: str  # Hexadecimal SHA-256 of the weights' file, or of a checkpoint's tensors
    sites: list[Site]  # Its sites, sorted by name
    whole: tuple[str, ...] = ()  # Modules trained in full beside them (`modules_to_save`)
    live: LiveModel | None = None  # The model in memory; None where it must be loaded


def read_adapter(path: str | Path) -> AdapterFolder:
    """Read a LoRA adapter in PEFT format, without loading its base model.

    Each site's scaling follows rank patterns, alpha patterns and rsLoRA. Modules trained in full beside the adapter
    (`modules_to_save`) have no low-rank update; a warning names them.

    Args:
        path: PEFT's folder with weights in safetensors, or a checkpoint of a graspl fit.

    Raises:
        GrasplError: the path is neither, or the adapter's update is not ``s B A``.
    """
    folder = Path(path)
    if is_checkpoint(folder):
        found = read_checkpoint(folder)
        config, tensors, base_model = found.config, found.tensors, found.base_model
        digest = _tensors_sha256(tensors)
    else:
        config, tensors = _read_config(folder), _read_tensors(folder)
        base_model = str(config.get("base_model_name_or_path") or "")
        with (folder / WEIGHTS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_kind(folder, config)
    factors: dict[str, dict[str, Tensor]] = {}
    others = []
    for key, tensor in sorted(tensors.items()):
        if match := _FACTOR.match(key):
            factors.setdefault(match["site"], {})[match["factor"]] = tensor
        else:
            others.append(key)
    whole = _trained_in_full(folder, others, config)
    if whole:
        log.warning("%s: the update of %s, trained in full, is not looked at", folder, ", ".join(whole))
    if not factors:
        raise GrasplError(f"{folder / WEIGHTS}: holds no lora_A and lora_B weights of linear layers")
    sites = [_site(folder, name, pair, config) for name, pair in factors.items()]
    return AdapterFolder(folder, base_model, digest, sites, whole)


def _trained_in_full(folder: Path, keys: Sequence[str], config: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of modules that are saved whole; every other tensor is refused."""
    saved = config.get("modules_to_save") or []
    found = {key: key.removeprefix("base_model.model.").rpartition(".")[0] for key in keys}
    strange = [
        key for key, name in found.items() if not any(f".{name}.".find(f".{each}.") >= 0 for each in saved)
    ]
    if strange:
        what = f"{len(strange)} tensors that are no factors of linear layers, e.g. {strange[0]!r}"
        raise GrasplError(f"{folder / WEIGHTS}: holds {what}; only plain LoRA is supported")
    return tuple(dict.fromkeys(found.values()))


def write_adapter(folder: Path, base_model: str, sites: Sequence[Site]) -> None:
    """Write sites as a LoRA adapter in PEFT format; give a temporary folder and rename it (`graspl.runs.atomic_path`)."""
    ranks = {site.name: site.A.shape[0] for site in sites}
    alphas = {site.name: site.scaling * ranks[site.name] for site in sites}
    r = max(ranks.values())
    config = LoraConfig(
        r=r,
        lora_alpha=r,  # type: ignore[arg-type]
        target_modules=sorted(ranks),
        rank_pattern={name: rank for name, rank in ranks.items() if rank != r},
        alpha_pattern={name: alpha for name, alpha in alphas.items() if alpha != r},
        base_model_name_or_path=base_model,
        task_type="CAUSAL_LM",
    )
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    tensors = {
        f"base_model.model.{site.name}.lora_{factor}.weight": tensor.detach().contiguous()
        for site in sites
        for factor, tensor in (("A", site.A), ("B", site.B))
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _tensors_sha256(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_config(folder: Path) -> dict[str, Any]:
    missing = f"{folder}: no readable {CONFIG} there; give a PEFT adapter folder"
    if not (folder / CONFIG).is_file():  # A named pipe would be waited for
        raise GrasplError(missing)
    with foreign(folder / CONFIG, "not JSON", "save the adapter again"):
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except OSError as error:
            raise GrasplError(missing) from error
    if not isinstance(config, dict):
        raise GrasplError(f"{folder / CONFIG}: must hold a JSON object; save the adapter again")
    return config


def _check_kind(folder: Path, config: dict[str, Any]) -> None:
    """Refuse every kind of adapter whose change of the weights is not ``s B A``."""
    where = folder / CONFIG
    if config.get("peft_type") != "LORA":
        raise GrasplError(f"{where}: peft_type is {config.get('peft_type')}; only LORA is supported")
    if config.get("use_dora"):
        raise GrasplError(f"{where}: use_dora also rescales the rows of W + dW; only plain LoRA is supported")
    _check_fields(where, config)
    _check_patterns(where, config)


def _check_fields(where: Path, config: dict[str, Any]) -> None:
    """Refuse fields that graspl has not verified."""
    for pattern in ("alpha_pattern", "rank_pattern"):
        found = config.get(pattern) or {}
        if not isinstance(found, dict) or not all(isinstance(value, int | float) for value in found.values()):
            raise GrasplError(f"{where}: {pattern} is {found!r}, and must give a number by module")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_SHIFTED_STARTS):
        fix = "convert it with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        raise GrasplError(f"{where}: with init_lora_weights {start}, B A is not the whole change; {fix}")
    if start not in VERIFIED_STARTS:
        raise GrasplError(f"{where}: init_lora_weights is {start!r}, which graspl has not verified")
    if config.get("bias", "none") != "none":
        raise GrasplError(
            f"{where}: bias is {config['bias']!r}, and biases are not part of B A; only none is supported"
        )
    for option, value in config.items():
        if value and option not in VERIFIED:
            raise GrasplError(f"{where}: {option!r} is set; only plain LoRA on linear layers is supported")


def _check_patterns(where: Path, config: dict[str, Any]) -> None:
    """Refuse regular expressions that a foreign file could stop graspl with."""
    named = [config.get(option) for option in ("target_modules", "exclude_modules", "layers_pattern")]
    patterns = [*(config.get("alpha_pattern") or {}), *(config.get("rank_pattern") or {}), *named]
    for each in patterns:
        if isinstance(each, str) and not _is_quick(each):
            raise GrasplError(
                f"{where}: the pattern {each[:60]!r} may take for ever to match; name the modules plainly"
            )


def _is_quick(pattern: str) -> bool:
    """Whether a regular expression of a foreign file matches in little time: short, and without repeated groups."""
    repeated_group, unbounded = re.search(r"\)\s*[*+{]", pattern), re.findall(r"[*+]|\{\d+,\}", pattern)
    return len(pattern) <= LONGEST_PATTERN and repeated_group is None and len(unbounded) <= MOST_REPEATS


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / "adapter_model.bin").exists():
            raise GrasplError(f"{folder}: adapter_model.bin is a pickle; save it as safetensors")
        raise GrasplError(f"{path}: no such file; give a PEFT adapter folder")
    with foreign(path, "not readable as safetensors", "copy or save it again"):
        return load_file(path)


def _site(folder: Path, name: str, pair: dict[str, Tensor], config: dict[str, Any]) -> Site:
    """Build a site, with the scaling that PEFT gives it."""
    where = f"{folder / WEIGHTS}: {name}"
    if set(pair) != {"A", "B"}:
        raise GrasplError(f"{where} has no lora_{'B' if 'A' in pair else 'A'}; save the adapter again")
    A, B = pair["A"], pair["B"]
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise GrasplError(f"{where}: lora_A {tuple(A.shape)} and lora_B {tuple(B.shape)} do not multiply")
    r, alphas, ranks = A.shape[0], config.get("alpha_pattern") or {}, config.get("rank_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), name), config.get("lora_alpha"))
    rank = ranks.get(get_pattern_key(list(ranks), name), config.get("r"))
    if rank != r or not isinstance(alpha, int | float) or not abs(alpha) <= LARGEST_ALPHA:
        raise GrasplError(f"{where}: lora_A has rank {r}, but {CONFIG} says r={rank}, lora_alpha={alpha}")
    return Site(name, A, B, alpha / (math.sqrt(r) if config.get("use_rslora") else r))
