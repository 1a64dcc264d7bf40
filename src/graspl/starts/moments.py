"""What adapted sites read from the base model: second moments of their inputs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graspl.adapters.forward import ONE_PLACE
from graspl.adapters.sharding import plain_name
from graspl.adapters.sites import Site
from graspl.data.batches import PaddedCollator
from graspl.data.tokens import TokenizedConversation
from graspl.host import Host

BATCH = 8  # Rows in a forward pass


@dataclass(frozen=True, eq=False)
class Moments:
    """What one site reads: all tokens summed up, or for a wide site a sample of them."""

    whole: Float[Tensor, "in_ in_"] | None = None  # The mean of x x^T over the tokens x, float64
    sample: Float[Tensor, "tokens in_"] | None = None  # Tokens, evenly spaced, float32

    def energy(self, basis: Float[Tensor, "in_ r"]) -> float:
        """Return the share of the inputs' energy in the span of an orthonormal basis, 0..1."""
        if self.whole is not None:
            return float((basis * (self.whole @ basis)).sum() / self.whole.trace())
        assert self.sample is not None, "a site has one or the other"
        x = self.sample.double()
        return float((x @ basis).square().sum() / x.square().sum())


def moments_of(
    host: Host, rows: Sequence[TokenizedConversation], sites: Sequence[Site], *, widest: int, tokens: int
) -> dict[str, Moments]:
    """Run the base model over rows and return the moments of the sites' inputs, over all tokens but padding.

    Sites that read the same tensor (q, k and v; gate and up) share one object.

    Args:
        host: the module that trains.
        rows: tokenized conversations.
        sites: whose inputs are wanted.
        widest: sites with more inputs keep a sample of tokens.
        tokens: in a sample.
    """
    stride = max(1, sum(map(len, rows)) // tokens)
    seen = _Seen({site.name: site.shape[1] > widest for site in sites}, stride)
    with watched(host, sites, seen.see):
        for batch in batches_of(host, rows):
            seen.mask = batch["attention_mask"].bool()
            host.base_forward(batch | {"logits_to_keep": ONE_PLACE})
    return seen.moments()


def gradients_of(
    host: Host, rows: Sequence[TokenizedConversation], sites: Sequence[Site]
) -> dict[str, Float[Tensor, "out in_"]]:
    """Return the gradient of the rows' mean loss in each site's frozen weight, at the base model, (out, in) in float32.

    The adapter must be new: with B zero the model is the base model, and its graph reaches the sites.
    """
    assert host.model is not None, "configure_model comes first"
    found = {site.name: torch.zeros(site.shape, device=site.B.device) for site in sites}
    modules = {plain_name(name): module for name, module in host.model.get_base_model().named_modules()}

    def watch(name: str, _module: Any, args: Any, out: Tensor) -> None:
        x = args[0].detach()

        def add(slope: Tensor) -> None:
            found[name] += slope.flatten(0, -2).float().mT @ x.flatten(0, -2).float()

        out.register_hook(add)

    hooks = [modules[name].register_forward_hook(partial(watch, name)) for name in found]
    training, tokens = host.model.training, 0
    host.model.eval()
    try:
        with host.unedited(), torch.enable_grad(), host.trainer.precision_plugin.train_step_context():
            for batch in batches_of(host, rows):
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


def batches_of(host: Host, rows: Sequence[TokenizedConversation]) -> Iterator[dict[str, Tensor]]:
    """Yield rows as padded batches on the host's device, rows of like length together."""
    collate = PaddedCollator(int(host.trainer.datamodule.tokenizer.pad_token_id))
    ordered = sorted(rows, key=len)
    for first in range(0, len(ordered), BATCH):
        batch = collate(ordered[first : first + BATCH])
        yield {name: each.to(host.device) for name, each in batch.items() if isinstance(each, Tensor)}


class _Seen:
    """Collects what sites read, pass by pass."""

    def __init__(self, is_wide: dict[str, bool], stride: int) -> None:
        self.mask = torch.ones(0, dtype=torch.bool)
        self._is_wide, self._stride = is_wide, stride
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._samples: dict[str, list[Tensor]] = {}
        self._first: dict[str, str] = {}  # By site, the one that read the same tensor first
        self._last: tuple[str, Tensor] | None = None

    def see(self, name: str, x: Tensor) -> None:
        if self._last is not None and self._last[1] is x:
            self._first[name] = self._last[0]
            return
        self._last, self._first[name] = (name, x), name
        tokens = x[self.mask].float()
        before = self._counts.get(name, 0)
        self._counts[name] = before + len(tokens)
        if self._is_wide[name]:
            self._samples.setdefault(name, []).append(tokens[-before % self._stride :: self._stride].cpu())
            return
        product = (tokens.mT @ tokens).double()
        self._sums[name] = self._sums[name] + product if name in self._sums else product

    def moments(self) -> dict[str, Moments]:
        whole = {name: Moments(whole=each / self._counts[name]) for name, each in self._sums.items()}
        drawn = {name: Moments(sample=torch.cat(each)) for name, each in self._samples.items()}
        found = whole | drawn
        return {name: found[first] for name, first in self._first.items()}
