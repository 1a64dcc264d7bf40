"""How an adapter responds to what its sites read: general text against the task's rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from graspl.adapters.forward import ONE_PLACE, model_logits
from graspl.data.tokens import TokenizedConversation
from graspl.host import Host
from graspl.starts.moments import answer_starts, batches_of, gradients_of, watched

# Median response of A to general text before training. On development tasks a null space held below the first, and removed
# little from the second on (docs/experiments.md).
HOLDS, FAILS = 0.35, 0.5
# A (r, in) and B (out, r) by site; without a B, A x is measured
Factors = dict[str, tuple[Tensor, Tensor | None]]
Outlook = Literal["likely to hold", "in doubt", "not likely to hold"]


class Response(NamedTuple):
    """Of one site: lengths of s B A x, or of A x, over tokens x; each over the root mean square on the task's rows."""

    typical: float  # Root mean square on general text
    starts: float  # The same where answers begin, over that where the task's answers begin
    largest: float  # The largest on general text


@dataclass(frozen=True)
class Responses:
    """Of all sites."""

    sites: dict[str, Response]
    text_rows: int
    task_rows: int
    first_step: float | None = None
    """Before training: the response of the fit's first step, over that of a naive fit's (`foreseen`)."""

    @property
    def typical(self) -> float:
        """The median over sites."""
        return median(each.typical for each in self.sites.values())

    @property
    def outlook(self) -> Outlook:
        """Whether the null space will hold, as predicted from what A reads of general text before training."""
        return (
            "likely to hold"
            if self.typical < HOLDS
            else "in doubt"
            if self.typical < FAILS
            else "not likely to hold"
        )

    @property
    def starts(self) -> float:
        """The median over sites."""
        return median(each.starts for each in self.sites.values())

    @property
    def largest(self) -> float:
        """The largest over sites."""
        return max(each.largest for each in self.sites.values())

    def sentence(self) -> str:
        """Say it in a few words."""
        step = (
            "" if self.first_step is None else f"; its first step's is {self.first_step:.1%} of a naive one's"
        )
        return (
            f"{self.typical:.1%} of that to the task's rows, {self.starts:.1%} where answers begin "
            f"(medians over sites; the largest to a token at any site {self.largest:.1%}){step}"
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        whole = {"typical": self.typical, "starts": self.starts, "largest": self.largest}
        rows = {"text_rows": self.text_rows, "task_rows": self.task_rows}
        whole |= {} if self.first_step is None else {"first_step": self.first_step}
        return whole | rows | {"sites": {name: each._asdict() for name, each in self.sites.items()}}


def responses(
    host: Host, task: Sequence[TokenizedConversation], text: Sequence[TokenizedConversation]
) -> Responses:
    """Run the adapted model over rows of the task and general text, and measure what each site's s B A x is there.

    Every process must call it.
    """
    factors: Factors = {
        site.name: (site.A.detach(), site.scaling * site.B.detach()) for site in host.whole_sites()
    }
    (found,) = _measured(host, [factors], task, text, partial(model_logits, host.model))
    return found


def foreseen(
    host: Host,
    steps: Sequence[Factors],
    task: Sequence[TokenizedConversation],
    text: Sequence[TokenizedConversation],
) -> Responses:
    """Run the base model over rows of the task and general text, and measure what each site's A x is there.

    A naive update reacts to some text more than to other text as well. How much less a fit from here does is the response of
    its first step over that of a naive fit's first step, medians over sites. Every process must call it.

    Args:
        host: the module that trains.
        steps: the first step of this fit, and a naive one's (`first_steps`).
        task: rows.
        text: rows.
    """
    reads: Factors = {site.name: (site.A.detach(), None) for site in host.whole_sites()}
    found, ours, naive = _measured(host, [reads, *steps], task, text, host.base_forward)
    return replace(found, first_step=ours.typical / naive.typical)


def first_steps(
    host: Host, plain: Mapping[str, Tensor], rows: Sequence[TokenizedConversation]
) -> list[Factors]:
    """Return A, and what gradient descent first makes of B, of a fit from here and of one whose A are `plain`.

    That is the gradient of the rows' mean loss in B, zero so far, but for sign and size. Every process must call it.
    """
    ours = {site.name: site.A.detach() for site in host.whole_sites()}
    both = {name: torch.cat([A, plain[name].to(A)]) for name, A in ours.items()}
    B = gradients_of(host, rows, host.sites, both)
    r = {name: len(A) for name, A in ours.items()}
    return [
        {name: (A[: r[name]], B[name][:, : r[name]]) for name, A in both.items()},
        {name: (A[r[name] :], B[name][:, r[name] :]) for name, A in both.items()},
    ]


def _measured(
    host: Host,
    wanted: Sequence[Factors],
    task: Sequence[TokenizedConversation],
    text: Sequence[TokenizedConversation],
    forward: Callable[[dict[str, Any]], Tensor],
) -> list[Responses]:
    """Return the responses of each of the factors wanted."""
    found = [[_Lengths(factors) for factors in wanted] for _ in range(2)]
    for side, rows in zip(found, (task, text), strict=True):

        def see(name: str, x: Tensor, side: list[_Lengths] = side) -> None:
            for lengths in side:
                lengths.see(name, x)

        with watched(host, host.sites, see):
            for batch in batches_of(host, rows):
                for lengths in side:
                    lengths.masks = [batch["attention_mask"].bool(), answer_starts(batch["labels"])]
                forward(batch | {"logits_to_keep": ONE_PLACE})
    return [
        Responses({name: _response(name, ours, theirs) for name in factors}, len(text), len(task))
        for factors, ours, theirs in zip(wanted, *found, strict=True)
    ]


def _response(name: str, task: "_Lengths", text: "_Lengths") -> Response:
    ours, theirs = task.sizes(name), text.sizes(name)
    return Response(theirs[0] / ours[0], theirs[1] / ours[1], text.largest[name] / ours[0])


class _Lengths:
    """Collects lengths of s B A x or A x, over all tokens and over those where answers begin."""

    def __init__(self, factors: Factors) -> None:
        self.masks: list[Tensor] = []
        self.largest: dict[str, float] = {}
        self._factors = factors
        self._sums: dict[str, list[tuple[float, int]]] = {}

    def see(self, name: str, x: Tensor) -> None:
        A, B = self._factors[name]
        read = x.to(A.dtype) @ A.mT
        lengths = (read if B is None else read @ B.mT).norm(dim=-1)
        self.largest[name] = max(self.largest.get(name, 0.0), float(lengths[self.masks[0]].max()))
        before = self._sums.get(name, [(0.0, 0)] * len(self.masks))
        here = [(float(lengths[mask].double().square().sum()), int(mask.sum())) for mask in self.masks]
        self._sums[name] = [(a + c, b + d) for (a, b), (c, d) in zip(before, here, strict=True)]

    def sizes(self, name: str) -> list[float]:
        """Return root mean squares, with a floor so that an update of zero can be divided by."""
        return [max((total / max(count, 1)) ** 0.5, 1e-30) for total, count in self._sums[name]]
