"""Starts from null spaces of what sites read; a prototype of parts that are to move to `graspl.starts`.

With A frozen, the update's response to an input x is at most ||s B|| ||A x||, whatever the optimizer does: what A does not
read, the adapter cannot react to.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import scipy.linalg
import torch
from torch import Tensor

from graspl.adapters.forward import ONE_PLACE
from graspl.adapters.sharding import like
from graspl.data.batches import PaddedCollator
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError
from graspl.host import Host
from graspl.starts import Start

BATCH = 8  # Rows in a forward pass


class Moments:
    """Sums of x x^T over the inputs x of sites, (in, in) each, in float64.

    Sites that read the same tensor (q, k and v; gate and up) share one sum.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.shared: dict[str, str] = {}
        self.tokens = 0
        self.mask: Tensor | None = None
        self._last: tuple[str, Tensor] | None = None

    def watch(self, name: str, x: Tensor) -> None:
        """Add what a site reads in this forward pass; x is (rows, L, in)."""
        if self._last is not None and self._last[1] is x:
            self.shared[name] = self._last[0]
            return
        self._last = name, x
        self.shared[name] = name
        assert self.mask is not None, "the mask comes first"
        tokens = x.detach()[self.mask].float()
        product = (tokens.mT @ tokens).double()
        self.sums[name] = self.sums[name] + product if name in self.sums else product

    def of(self, name: str) -> Tensor:
        """Return a site's mean of x x^T."""
        return self.sums[self.shared[name]] / self.tokens


@contextmanager
def watched(host: Host, moments: Moments) -> Iterator[None]:
    """Let `moments` see what every site reads in the forward passes of the block."""
    assert host.model is not None, "configure_model comes first"
    modules = dict(host.model.get_base_model().named_modules())
    hooks = []
    for site in host.sites:

        def look(_module: Any, args: Any, name: str = site.name) -> None:
            moments.watch(name, args[0])

        hooks.append(modules[site.name].register_forward_pre_hook(look))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def moments_of(host: Host, rows: Sequence[TokenizedConversation]) -> Moments:
    """Run the base model over rows and return the moments of its sites' inputs, over all tokens but padding."""
    moments = Moments()
    collate = PaddedCollator(int(host.trainer.datamodule.tokenizer.pad_token_id))
    ordered = sorted(rows, key=len)
    with watched(host, moments), host.unedited():
        for first in range(0, len(ordered), BATCH):
            batch = collate(ordered[first : first + BATCH])
            batch = {name: batch[name].to(host.device) for name in ("input_ids", "attention_mask")}
            moments.mask = batch["attention_mask"].bool()
            moments.tokens += int(moments.mask.sum())
            host.base_forward(batch | {"logits_to_keep": ONE_PLACE})
    return moments


def contrastive_basis(task: Tensor, general: Tensor, r: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Return r orthonormal inputs that are loud on the task and silent on general text, (in, r), and their lambdas, (r,).

    max_a  a^T S_task a / a^T (S_general + c I) a,  the top solutions of S_task a = lambda (S_general + c I) a,  with
    c = ridge tr(S_general) / in; their span is made orthonormal.

    Args:
        task: (in, in) mean of x x^T over task rows, float64.
        general: the same over general text.
        r: how many.
        ridge: relative to the mean eigenvalue of `general`.
    """
    size = general.shape[0]
    held = general + ridge * general.diagonal().mean() * torch.eye(size, dtype=general.dtype)
    top = [size - r, size - 1]
    values, vectors = scipy.linalg.eigh(task.cpu().numpy(), held.cpu().numpy(), subset_by_index=top)
    return torch.linalg.qr(torch.from_numpy(vectors[:, ::-1].copy()))[0], torch.from_numpy(
        values[::-1].copy()
    )


@dataclass
class NullSpaceStart(Start):
    """A begins as a basis of inputs that general text does not use, and stays frozen; B begins at zero.

    `contrastive`: loud on the task's rows and silent on general text (`contrastive_basis`). `null`: the bottom eigenvectors
    of general text alone, after LoRA-Null (arXiv:2503.02659). `random`: a random orthonormal basis, the control.
    Source:
        Own; related: CorDA (arXiv:2406.05223), SC-LoRA (arXiv:2505.23724).
    """

    kind: Literal["contrastive", "null", "random"] = "contrastive"
    """Which basis."""
    ridge: float = 1e-4
    """Of the general text's moments, relative to their mean eigenvalue."""
    limit: int = 200
    """Rows of the task and of general text that are read."""
    train_A: bool = False
    """Whether A is trained; the guarantee holds only where it is not."""

    @torch.no_grad()
    def begin(self, host: Host) -> None:
        """Set A of every site."""
        data = host.trainer.datamodule
        text, rows = data.text_conversations()[: self.limit], data.train_conversations()[: self.limit]
        if not text and self.kind != "random":
            raise GrasplError("data.text: is missing; NullSpaceStart reads general text")
        general = moments_of(host, text) if self.kind != "random" else None
        task = moments_of(host, rows) if self.kind == "contrastive" else None
        bases: dict[str, Tensor] = {}
        self.energy: dict[str, tuple[float, float]] = {}
        generator = torch.Generator().manual_seed(int(torch.initial_seed() % 2**31))
        for site in host.sites:
            r, size = site.A.shape[0], site.A.shape[1]
            if general is None:
                basis = torch.linalg.qr(torch.randn(size, r, generator=generator, dtype=torch.float64))[0]
            else:
                key = general.shared[site.name]
                if key not in bases:
                    S = general.of(site.name)
                    if task is None:
                        bases[key] = torch.linalg.eigh(S)[1][:, :r]
                    else:
                        bases[key] = contrastive_basis(task.of(site.name), S, r, self.ridge)[0]
                        self.energy[key] = tuple(
                            float((bases[key].mT @ M @ bases[key]).trace() / M.trace())
                            for M in (task.of(site.name), S)
                        )  # type: ignore[assignment]
                basis = bases[key]
            rows_of_A = basis.mT.contiguous()
            site.A.copy_(like(rows_of_A.to(site.A.device, site.A.dtype), site.A, split=True))
