"""The files of an exported model: the adapter or the merged model, its tokenizer, and where answers end."""

from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from graspl.adapters import load_adapter, load_base_model, load_tokenizer
from graspl.adapters.files import CONFIG, WEIGHTS, AdapterFolder
from graspl.data.tokens import with_chat_template
from graspl.data.turns import end_of_answer
from graspl.errors import GrasplError, foreign

PROBE = 32  # Tokens on which a merged model is compared with its adapter
APART = 0.1  # How far merging may move the logits, over their spread: rounding to half precision moves them by 0.01


class Merged(NamedTuple):
    """What merging did to a model."""

    difference: (
        float  # Largest difference of a logit between the written model and the adapter on its base model
    )
    largest: float  # Size of the largest logit: what the difference is to be compared with
    dtype: str  # Of the weights, e.g. `float32`


def tokenizer_of(
    adapter: Path, base_model: str, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Return the tokenizer that lies beside an adapter, as `graspl fit` leaves it, else the base model's.

    It has the chat template that the fit used, also where graspl invented it.

    Raises:
        GrasplError: neither can be loaded.
    """
    own = str(adapter) if (adapter / "tokenizer_config.json").is_file() else base_model
    if own != base_model:
        with foreign(adapter, "its tokenizer cannot be loaded", "fit again"):
            from transformers import AutoTokenizer

            return with_chat_template(AutoTokenizer.from_pretrained(own))
    return with_chat_template(load_tokenizer(base_model, trust_remote_code=trust_remote_code))


def generation_of(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return a generation config that stops where graspl stops an answer.

    It holds nothing else: graspl measures without the sampling and the penalties of the base model's own file.
    """
    ends: Any = end_of_answer(tokenizer).stops(tokenizer)
    return GenerationConfig(
        eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )


def write_adapter(adapter: AdapterFolder, folder: Path, base_model: str) -> None:
    """Write an adapter in PEFT's format; its weights are those of the file, byte for byte.

    Args:
        adapter: as read from PEFT's folder.
        folder: to write into; it is there.
        base_model: the name that the adapter is to give.
    """
    with foreign(adapter.path / CONFIG, "cannot be read", "save the adapter again"):
        config: Any = LoraConfig.from_pretrained(str(adapter.path))
    config.base_model_name_or_path, config.inference_mode = base_model, True
    config.save_pretrained(str(folder))
    copyfile(adapter.path / WEIGHTS, folder / WEIGHTS)


@torch.no_grad()
def write_merged(
    adapter: AdapterFolder,
    folder: Path,
    base_model: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    dtype: str,
    trust_remote_code: bool = False,
) -> Merged:
    """Write the base model with the adapter added to its weights; the result is loaded again and compared.

    Args:
        adapter: as read from PEFT's folder.
        folder: to write into; it is there.
        base_model: hub name or folder to load.
        tokenizer: whose ends of answers the model's generation config gets.
        dtype: of the base model's weights: auto, float32, bfloat16 or float16.
        trust_remote_code: let the base model's own Python code run.

    Raises:
        GrasplError: the adapter does not fit or cannot be merged, or the written model computes something else.
    """
    base = load_base_model(base_model, dtype=dtype, trust_remote_code=trust_remote_code)
    with_adapter = load_adapter(base, str(adapter.path)).eval()
    ids = _probe(with_adapter.config.get_text_config().vocab_size)
    before = with_adapter(input_ids=ids).logits.float()
    fix = "export the adapter alone (--merge false)"
    with foreign(f"adapter: {adapter.path}", "cannot be merged into the base model", fix):
        model: Any = with_adapter.merge_and_unload(safe_merge=True)
        model.generation_config = generation_of(tokenizer)
        model.save_pretrained(str(folder))
    del base, with_adapter, model
    written = load_base_model(str(folder), trust_remote_code=trust_remote_code).eval()
    after = written(input_ids=ids).logits.float()
    _check_equal(before, after, fix)
    apart, largest = float((before - after).abs().max()), float(before.abs().max())
    return Merged(apart, largest, str(written.dtype).removeprefix("torch."))


def _probe(vocabulary: int) -> Tensor:
    """Return ids spread over a vocabulary, (1, PROBE)."""
    return torch.linspace(0, vocabulary - 1, min(PROBE, vocabulary)).long()[None]


def _check_equal(before: Tensor, after: Tensor, fix: str) -> None:
    apart = float((before - after).abs().mean() / before.std())
    if not apart <= APART:
        raise GrasplError(
            f"merge: the merged model does not compute what the adapter does (logits differ by {apart:.2g} of their "
            f"spread); {fix}"
        )
