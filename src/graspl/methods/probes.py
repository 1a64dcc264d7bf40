"""What a model is assumed to support, tried out on the model itself before figures rest on it."""

import re
from typing import Any

import torch
from torch import Tensor

from graspl.adapters.forward import model_logits
from graspl.adapters.sharding import plain_name
from graspl.data.batches import PackedCollator, PaddedCollator, pack
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError

LENGTH = 12  # Tokens of a row that is tried out
ROWS = 4  # Rows with a shared prefix that are tried out
# How far a token's logits may move, mean over the vocabulary, over their spread. Rounding moves them, a leak far more. What
# other tokens cannot reach is the same to the last digits; what is computed in another order is not.
SAME, REORDERED = 1e-5, 1e-3
LOW_PRECISION = 0.1  # In place of both, where anything is computed in 16 bits or fewer


def check_ids(module: Any) -> None:
    """Refuse token ids that the model has no embedding of.

    Raises:
        GrasplError: the token that pads, or one of the training rows, lies beyond the embedding.
    """
    data = module.trainer.datamodule
    known = module.model.get_input_embeddings().num_embeddings
    if pad_id(module) >= known:
        pads = f"the tokenizer pads with {data.tokenizer.pad_token!r}, id {pad_id(module)}"
        raise GrasplError(
            f"base_model: {pads}, and the embedding has {known} rows; set another pad_token in tokenizer_config.json"
        )
    largest = max((max(row.input_ids) for row in data.train_conversations() if row.input_ids), default=0)
    if largest >= known:
        token = data.tokenizer.convert_ids_to_tokens(largest)
        fix = "use the model's own tokenizer, or resize the embedding and save the model"
        raise GrasplError(
            f"base_model: the tokenizer gives {token!r} the id {largest}, and the embedding has {known} rows; {fix}"
        )


@torch.no_grad()
def check_causal(module: Any) -> None:
    """Change a row's last token, and see whether earlier predictions stay.

    Raises:
        GrasplError: they are not finite, or they move: the model sees what it is to predict.
    """
    ids = module.trainer.datamodule.train_conversations()[0].input_ids[:LENGTH]
    other = [*ids[:-1], (ids[-1] + 1) % _vocabulary(module)]
    collate = PaddedCollator(pad_id(module))
    name = type(module.model.get_base_model()).__name__
    try:
        first, second = (logits_of(module, collate([row_of(each)]))[0, :-1] for each in (ids, other))
    except ModelFailed as error:
        fix = "adapt other layers (lora.target_modules), or give another model"
        raise GrasplError(f"base_model: {name} does not run with its adapter ({error}); {fix}") from error
    if not first.isfinite().all():
        precision = f"{module.options.dtype} weights at trainer.precision {module.trainer.precision}"
        raise GrasplError(
            f"base_model: {name} gives predictions that are no numbers (NaN or infinite) on the first training row, with "
            f"{precision}; its weights are broken, or need bfloat16 or float32"
        )
    if len(ids) > 1 and not _moved(first, second) <= _tolerance(module, SAME):
        raise GrasplError(
            f"base_model: {name} sees tokens that come later, as no causal language model does; give one that is"
        )


@torch.no_grad()
def check_longest(module: Any) -> None:
    """Run the longest row, or pack of rows, where it has more tokens than the model has positions.

    Raises:
        GrasplError: the model cannot run it.
    """
    data = module.trainer.datamodule
    positions = getattr(
        module.model.get_base_model().config.get_text_config(), "max_position_embeddings", None
    )
    packs = [[row] for row in data.train_conversations()]
    if data.packing:
        packs = pack(data.train_conversations(), max_length=data.max_length, seed=data.seed)
    longest = max(packs, key=lambda rows: sum(map(len, rows)))
    length = sum(map(len, longest))
    if positions is None or length <= positions:
        return
    batch = (
        PackedCollator(pad_id(module))([longest]) if data.packing else PaddedCollator(pad_id(module))(longest)
    )
    try:
        logits_of(module, batch)
    except ModelFailed as error:
        what = f"a pack of {length} tokens" if data.packing else f"a row of {length} tokens"
        why = f"the model has {positions} positions and cannot run {what} ({error})"
        raise GrasplError(f"data.max_length: {why}; set it to {positions}") from error


@torch.no_grad()
def check_reached(module: Any) -> None:
    """Run the first row, and see which adapted maps it runs through.

    Experts that the row is not sent to count as run where another of the same name is.

    Raises:
        GrasplError: a map is run in no layer, e.g. a cross-attention, so that nothing would ever be trained in it.
    """
    run: set[str] = set()
    names = [site.name for site in module.sites]
    modules = {plain_name(name): each for name, each in module.model.get_base_model().named_modules()}
    handles = [
        modules[name].register_forward_hook(lambda *_, name=name: run.add(_in_any_layer(name)))
        for name in names
    ]
    ids = module.trainer.datamodule.train_conversations()[0].input_ids[:LENGTH]
    try:
        logits_of(module, PaddedCollator(pad_id(module))([row_of(ids)]))
    finally:
        for handle in handles:
            handle.remove()
    idle = next((name for name in names if _in_any_layer(name) not in run), None)
    if idle is not None:
        others = {part for name in run for part in name.split(".")}
        part = next((part for part in _in_any_layer(idle).split(".") if part not in others), idle)
        fix = f"leave it out: lora.exclude_modules: '.*{part}.*'"
        raise GrasplError(
            f"lora.target_modules: {idle} is not run on text, so nothing is trained in it; {fix}"
        )


def _in_any_layer(name: str) -> str:
    """Return a module's name with a star for each number, the same for every layer and expert."""
    return re.sub(r"\d+", "*", name)


def _vocabulary(module: Any) -> int:
    return int(module.model.get_base_model().config.get_text_config().vocab_size)


@torch.no_grad()
def check_packing(module: Any) -> None:
    """Run two short rows packed and apart, and the second one behind another first one.

    Raises:
        GrasplError: the second row's logits move, so rows of a pack are not apart in this model.
    """
    rows, pad = module.trainer.datamodule.train_conversations(), pad_id(module)
    first, second = rows[0].input_ids[:LENGTH], rows[-1].input_ids[:LENGTH]
    other = [(each + 1) % _vocabulary(module) for each in first]
    packs = [PackedCollator(pad)([[row_of(ids), row_of(second)]]) for ids in (first, other)]
    name = type(module.model.get_base_model()).__name__
    try:
        batches = (*packs, PaddedCollator(pad)([row_of(second)]))
        found = [logits_of(module, batch)[0, -len(second) :] for batch in batches]
    except ModelFailed as error:
        raise GrasplError(f"data.packing: {name} cannot run packs ({error}); set it to false") from error
    moved, apart = _moved(found[0], found[1]), _moved(found[0], found[2])
    if not (moved <= _tolerance(module, SAME) and apart <= _tolerance(module, REORDERED)):
        raise GrasplError(
            f"data.packing: in {name} a row of a pack depends on the others "
            f"(its logits move by {max(moved, apart):.2g} of their spread); set it to false"
        )


@torch.no_grad()
def check_prefixes(module: Any, batch: dict[str, Any]) -> None:
    """Run rows of a batch with shared prefixes as whole rows too.

    Raises:
        GrasplError: the logits differ, so this model cannot go on from a shared prefix.
    """
    few = _few(batch)
    owner = few["row_prefix"]
    parts = [
        (prefix[has.bool()].tolist(), own[kept.bool()].tolist())
        for prefix, has, own, kept in zip(
            few["prefix_ids"][owner],
            few["prefix_mask"][owner],
            few["input_ids"],
            few["attention_mask"],
            strict=True,
        )
    ]
    whole = PaddedCollator(pad_id(module))([row_of(prefix + own) for prefix, own in parts])
    name = type(module.model.get_base_model()).__name__
    try:
        shared = logits_of(module, few)
    except ModelFailed as error:
        why = f"{name} cannot go on from a shared prefix ({error})"
        raise GrasplError(f"data.share_prefixes: {why}; set it to false") from error
    apart = logits_of(module, whole)
    moved = max(
        _moved(shared[place, : len(own)], apart[place, len(prefix) : len(prefix) + len(own)])
        for place, (prefix, own) in enumerate(parts)
    )
    if not moved <= _tolerance(module, REORDERED):
        why = f"{name} gives other logits where rows go on from a shared prefix"
        raise GrasplError(
            f"data.share_prefixes: {why} (they move by {moved:.2g} of their spread); set it to false"
        )


class ModelFailed(Exception):
    """The model's own code failed on a batch."""


def row_of(ids: list[int]) -> TokenizedConversation:
    """Return a row that is an answer from its second token on."""
    return TokenizedConversation(ids, ids)


def pad_id(module: Any) -> int:
    """Return the id of the token that pads."""
    return int(module.trainer.datamodule.tokenizer.pad_token_id)


def _few(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the first rows of a batch with shared prefixes."""
    few = dict(batch)
    for name in ("input_ids", "attention_mask", "row_prefix"):
        few[name] = batch[name][:ROWS]
    return few


def logits_of(module: Any, batch: dict[str, Any]) -> Tensor:
    """Return a batch's logits in evaluation mode.

    Raises:
        ModelFailed: the model's own code failed.
    """
    training = module.model.training
    module.model.eval()
    try:
        # Compiled layers would not run hooks that were put on since
        with module.trainer.precision_plugin.val_step_context(), torch.compiler.set_stance("force_eager"):
            moved = {
                key: each.to(module.device) if isinstance(each, Tensor) else each
                for key, each in batch.items()
            }
            return model_logits(module.model, moved)
    except Exception as error:  # a family's own code raises anything
        reason = (str(error).strip().splitlines() or [""])[0][:150]
        raise ModelFailed(f"{type(error).__name__}: {reason}") from error
    finally:
        module.model.train(training)


def _moved(ours: Tensor, theirs: Tensor) -> float:
    """Return how far the logits (L, vocabulary) are apart at the worst token, over their spread."""
    ours, theirs = ours.float(), theirs.float()
    return float((ours - theirs).abs().mean(-1).max() / theirs.std())


def _tolerance(module: Any, whole: float) -> float:
    """Return the tolerance; logits may be float32 though the model is not, so its weights say how exact they are."""
    exact = all(p.dtype in (torch.float32, torch.float64) for p in module.model.parameters())
    return whole if exact and "16" not in str(module.trainer.precision) else LOW_PRECISION
