"""What a model is assumed to support, tried out on the model itself before figures rest on it."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from graspl.adapters import decoder_layers
from graspl.adapters.forward import model_logits
from graspl.adapters.residual import WRITERS
from graspl.adapters.sharding import plain_name
from graspl.data.batches import PackedCollator, PaddedCollator
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError

LENGTH = 12  # Tokens of a row that is tried out
ROWS = 4  # Rows with a shared prefix that are tried out
# Mean over the vocabulary of how far a token's logits may move, over their spread: rounding moves them, a leak far more
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
LOW_PRECISION = 0.1
WRITES, PUSH = (
    0.5,
    0.1,
)  # Cosine from which a site writes to the stream; how far it is pushed, over the stream's spread


def check_ids(module: Any) -> None:
    """Refuse token ids that the model has no embedding of.

    Raises:
        GrasplError: the token that pads, or one of the training rows, lies beyond the embedding.
    """
    data = module.trainer.datamodule
    known = module.model.get_input_embeddings().num_embeddings
    if _pad_id(module) >= known:
        pads = f"the tokenizer pads with {data.tokenizer.pad_token!r}, id {_pad_id(module)}"
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
def check_packing(module: Any) -> None:
    """Run two short rows packed and apart, and the second one behind another first one.

    Raises:
        GrasplError: the second row's logits move, so rows of a pack are not apart in this model.
    """
    rows, pad = module.trainer.datamodule.train_conversations(), _pad_id(module)
    first, second = rows[0].input_ids[:LENGTH], rows[-1].input_ids[:LENGTH]
    vocabulary = module.model.get_base_model().config.get_text_config().vocab_size
    other = [(each + 1) % vocabulary for each in first]
    packs = [PackedCollator(pad)([[_row(ids), _row(second)]]) for ids in (first, other)]
    found = [
        _logits(module, batch)[0, -len(second) :] for batch in (*packs, PaddedCollator(pad)([_row(second)]))
    ]
    # Other tokens before it leave a row as it is to the last digits; alone it is computed in another order
    moved, apart = _moved(found[0], found[1]), _moved(found[0], found[2])
    if not (moved <= _tolerance(found[0]) / 100 and apart <= _tolerance(found[0])):
        raise GrasplError(
            f"data.packing: in {type(module.model.get_base_model()).__name__} a row of a pack depends on the others "
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
    whole = PaddedCollator(_pad_id(module))([_row(prefix + own) for prefix, own in parts])
    name = type(module.model.get_base_model()).__name__
    try:
        shared = _logits(module, few)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        why = f"{name} cannot go on from a shared prefix ({error})"
        raise GrasplError(f"data.share_prefixes: {why}; set it to false") from error
    apart = _logits(module, whole)
    moved = max(
        _moved(shared[place, : len(own)], apart[place, len(prefix) : len(prefix) + len(own)])
        for place, (prefix, own) in enumerate(parts)
    )
    if not moved <= _tolerance(shared):
        why = f"{name} gives other logits where rows go on from a shared prefix"
        raise GrasplError(
            f"data.share_prefixes: {why} (they move by {moved:.2g} of their spread); set it to false"
        )


@torch.no_grad()
def check_writers(module: Any) -> None:
    """Push what adapted sites put out, and see whether the stream behind their layer moves the same way.

    Whoever writes to the residual stream adds to it, so the push comes through as it is; through other maps it does not. A
    site is tried in the first layer that has it.

    Raises:
        GrasplError: a site writes to the stream that is not known to by its name, so constraints would not hold it.
    """
    layers = decoder_layers(module.model)
    modules = {plain_name(name): each for name, each in module.model.get_base_model().named_modules()}
    row = _row(module.trainer.datamodule.train_conversations()[0].input_ids[:LENGTH])
    batch, tried = PaddedCollator(_pad_id(module))([row]), set()
    for site in module.sites:
        layer = next((name for name in layers if site.name.startswith(f"{name}.")), None)
        place = None if layer is None else site.name.removeprefix(layer)
        known = site.name.rpartition(".")[2] in WRITERS
        if layer is None or place in tried or known or site.shape[0] != _hidden(module):
            continue
        tried.add(place)
        if _alike(module, batch, layers[layer], modules[site.name]) > WRITES:
            why = (
                "writes to the residual stream, under a name by which graspl would neither hold nor count it"
            )
            fix = f"leave it out: lora.exclude_modules: '.*{re.escape(str(place))}'"
            raise GrasplError(f"lora.target_modules: {site.name} {why}; {fix}")


def _hidden(module: Any) -> int:
    return int(module.model.get_base_model().config.get_text_config().hidden_size)


def _alike(module: Any, batch: dict[str, Any], layer: nn.Module, pushed: nn.Module) -> float:
    """Return the cosine between a random push of a module's output and how the stream behind the layer moves."""
    found: list[Tensor] = []
    push: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        found.append((output[0] if isinstance(output, tuple) else output).float())

    def add(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        random = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output.device)
        push.append(PUSH * found[0].std() * random.view_as(output))
        return output + push[0].to(output.dtype)

    handles = [layer.register_forward_hook(keep)]
    try:
        _logits(module, batch)
        handles.append(pushed.register_forward_hook(add))
        _logits(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not push:  # The module is not run
        return 0.0
    return float(nn.functional.cosine_similarity((found[1] - found[0]).flatten(), push[0].flatten(), dim=0))


def _row(ids: list[int]) -> TokenizedConversation:
    return TokenizedConversation(ids, ids)


def _pad_id(module: Any) -> int:
    return int(module.trainer.datamodule.tokenizer.pad_token_id)


def _few(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the first rows of a batch with shared prefixes."""
    few = dict(batch)
    for name in ("input_ids", "attention_mask", "row_prefix"):
        few[name] = batch[name][:ROWS]
    return few


def _logits(module: Any, batch: dict[str, Any]) -> Tensor:
    training = module.model.training
    module.model.eval()
    try:
        with module.trainer.precision_plugin.val_step_context():
            moved = {
                key: each.to(module.device) if isinstance(each, Tensor) else each
                for key, each in batch.items()
            }
            return model_logits(module.model, moved)
    finally:
        module.model.train(training)


def _moved(ours: Tensor, theirs: Tensor) -> float:
    """Return how far the logits (L, vocabulary) are apart at the worst token, over their spread."""
    ours, theirs = ours.float(), theirs.float()
    return float((ours - theirs).abs().mean(-1).max() / theirs.std())


def _tolerance(logits: Tensor) -> float:
    return TOLERANCE.get(logits.dtype, LOW_PRECISION)
