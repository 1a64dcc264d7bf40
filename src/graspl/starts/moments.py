"""What adapted sites read from the base model: second moments of their inputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.adapters.answers import IGNORED
from graspl.adapters.forward import ONE_PLACE
from graspl.adapters.sharding import plain_name
from graspl.adapters.sites import Site
from graspl.data.batches import PaddedCollator
from graspl.data.tokens import TokenizedConversation
from graspl.host import Host

BATCH = 8  # Rows in a forward pass


@dataclass(frozen=True, eq=False)
class Moments:
    """What one site reads, as S = sum of w x x^T over tokens x with weights w: formed, or for a wide site by its terms.

    Half of S, by its trace, is of the tokens from which an answer begins, the other half of all tokens. Much of what an
    answer will be like is decided where it begins, and these tokens are few.
    """

    whole: Float[Tensor, "in_ in_"] | None = None  # S, float64
    # X with S = X^T X: evenly spaced tokens, weighted, float64
    sample: Float[Tensor, "tokens in_"] | None = None


def moments_of(
    host: Host, rows: Sequence[TokenizedConversation], sites: Sequence[Site], *, widest: int, tokens: int
) -> dict[str, Moments]:
    """Run the base model over rows and return the moments of the sites' inputs, without padding.

    Sites that read the same tensor (q, k and v; gate and up) share one object.

    Args:
        host: the module that trains.
        rows: tokenized conversations.
        sites: whose inputs are wanted.
        widest: sites with more inputs keep a sample of tokens.
        tokens: in a sample, at least, where the rows have them; at most twice as many.
    """
    seen = _Seen({site.name: site.shape[1] > widest for site in sites}, tokens)
    with watched(host, sites, seen.see):
        for batch in batches_of(host, rows):
            seen.masks = {"every": batch["attention_mask"].bool(), "first": answer_starts(batch["labels"])}
            host.base_forward(batch | {"logits_to_keep": ONE_PLACE})
    return seen.moments()


def first_readers(host: Host, row: TokenizedConversation, sites: Sequence[Site]) -> dict[str, str]:
    """Return for each site the first one that reads the same tensor (q for k and v), from one forward pass."""
    seen = _Seen({}, 0)
    with watched(host, sites, seen.see):
        for batch in batches_of(host, [row]):
            host.base_forward(batch | {"logits_to_keep": ONE_PLACE})
    return seen.first


def answer_starts(labels: Tensor) -> Tensor:
    """Return the places that predict the first token of an answer, (b, L), from labels (b, L)."""
    answers = labels != IGNORED
    starts = torch.zeros_like(answers)
    starts[:, :-1] = answers[:, 1:] & ~answers[:, :-1]
    return starts


def gradients_of(
    host: Host,
    rows: Sequence[TokenizedConversation],
    sites: Sequence[Site],
    factors: Mapping[str, Float[Tensor, "k in_"]] | None = None,
) -> dict[str, Float[Tensor, "out in_"]]:
    """Return the gradient G of the rows' mean loss in each site's frozen weight, at the base model, (out, in) in float32.

    With `factors` A, (k, in) by site, it is that in a B beside A, G A^T, (out, k): no matrix of the weight's size is formed.
    The adapter must be new: with B zero the model is the base model, and its graph reaches the sites.
    """
    assert host.model is not None, "configure_model comes first"
    widths = {site.name: site.shape[1] if factors is None else len(factors[site.name]) for site in sites}
    found = {site.name: torch.zeros(site.shape[0], widths[site.name], device=site.B.device) for site in sites}
    modules = {plain_name(name): module for name, module in host.model.get_base_model().named_modules()}

    def watch(name: str, _module: Any, args: Any, out: Tensor) -> None:
        x = args[0].detach().flatten(0, -2)
        read = x if factors is None else x.float() @ factors[name].float().mT

        def add(slope: Tensor) -> None:
            found[name] += slope.flatten(0, -2).float().mT @ read.float()

        out.register_hook(add)

    hooks = [modules[name].register_forward_hook(partial(watch, name)) for name in found]
    training, tokens = host.model.training, 0
    # As in training, where the memory was found to be enough; Transformers drops activations in training mode alone
    host.model.train(host.options.gradient_checkpointing)
    size = min(BATCH, host.trainer.datamodule.batch_size)
    try:
        with host.unedited(), torch.enable_grad(), host.trainer.precision_plugin.train_step_context():
            for batch in batches_of(host, rows, size):
                loss, answered = host.answer_loss(batch)
                loss.backward()
                tokens += int(answered)
    finally:
        host.model.train(training)
        for hook in hooks:
            hook.remove()
    for p in (p for site in host.sites for p in (site.A, site.B)):
        p.grad = None
    return {name: each / tokens for name, each in found.items()}


@contextmanager
def watched(host: Host, sites: Sequence[Site], see: Any) -> Iterator[None]:
    """Call `see(name, x)` with what a site reads, (rows, L, in), in the forward passes of the block.

    The model is in evaluation mode there, and without edits and stream constraints.
    """
    assert host.model is not None, "configure_model comes first"
    model = host.model
    modules = {plain_name(name): module for name, module in model.get_base_model().named_modules()}
    hooks = [
        modules[site.name].register_forward_pre_hook(lambda _m, args, name=site.name: see(name, args[0]))
        for site in sites
    ]
    training = model.training
    model.eval()
    try:
        with host.unedited(), torch.no_grad():
            yield
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def batches_of(
    host: Host, rows: Sequence[TokenizedConversation], size: int = BATCH
) -> Iterator[dict[str, Tensor]]:
    """Yield rows as padded batches on the host's device, rows of like length together."""
    collate = PaddedCollator(int(host.trainer.datamodule.tokenizer.pad_token_id))
    ordered = sorted(rows, key=len)
    for first in range(0, len(ordered), size):
        batch = collate(ordered[first : first + size])
        yield {name: each.to(host.device) for name, each in batch.items() if isinstance(each, Tensor)}


class _Seen:
    """Collects what sites read, pass by pass, of all tokens and of those from which an answer begins."""

    def __init__(self, is_wide: dict[str, bool], tokens: int) -> None:
        self.masks: dict[str, Tensor] = {}
        self._is_wide, self._tokens = is_wide, tokens
        self._sums: dict[str, Tensor] = {}  # Over all tokens, (in, in)
        self._few: dict[str, list[Tensor]] = {}  # Those where answers begin: added up once, at the end
        self._drawn: dict[str, dict[str, _Drawn]] = {}
        self.first: dict[str, str] = {}  # By site, the one that read the same tensor first
        self._last: tuple[str, Tensor] | None = None

    def see(self, name: str, x: Tensor) -> None:
        if self._last is not None and self._last[1] is x:
            self.first[name] = self._last[0]
            return
        self._last, self.first[name] = (name, x), name
        for which, mask in self.masks.items():
            tokens = x[mask].float()
            if self._is_wide[name]:
                self._drawn.setdefault(name, {}).setdefault(which, _Drawn(self._tokens)).add(tokens)
                continue
            if which == "first":
                self._few.setdefault(name, []).append(tokens)
                continue
            product = tokens.mT @ tokens
            if name in self._sums:
                self._sums[name] += product
            else:
                self._sums[name] = product.double()

    def moments(self) -> dict[str, Moments]:
        found = {}
        for name in list(self._sums):
            # One site at a time, in place: S is large
            S = self._sums.pop(name)
            starts = torch.cat(self._few.pop(name)).double()
            S.div_(2 * S.trace())
            if len(starts):
                S.addmm_(starts.mT, starts, alpha=0.5 / float(starts.square().sum()))
            found[name] = Moments(whole=S)
        for name, each in self._drawn.items():
            parts = [torch.cat(drawn.parts).double() for drawn in each.values()]
            halves = [X / X.norm() * 0.5**0.5 for X in parts if X.any()]
            found[name] = Moments(sample=torch.cat(halves))
        return {name: found[first] for name, first in self.first.items()}


class _Drawn:
    """Every so many tokens of a stream whose length nobody knows: more than half of `most`, and no more than `most`."""

    def __init__(self, tokens: int) -> None:
        self.parts: list[Tensor] = []
        self._most, self._stride, self._seen = 2 * tokens, 1, 0

    def add(self, tokens: Tensor) -> None:
        self.parts.append(tokens[-self._seen % self._stride :: self._stride].cpu())
        self._seen += len(tokens)
        while sum(map(len, self.parts)) > self._most:
            self.parts = [torch.cat(self.parts)[::2]]
            self._stride *= 2
