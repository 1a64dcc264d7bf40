"""How an update responds to what its sites read: general text against the task's rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graspl.adapters.forward import ONE_PLACE, model_logits
from graspl.data.tokens import TokenizedConversation
from graspl.host import Host
from graspl.starts.moments import batches_of, watched


class Response(NamedTuple):
    """Of one site: lengths of s B A x over tokens x."""

    typical: float  # Root mean square on general text over that on the task's rows
    largest: float  # The largest on general text over the root mean square on the task's rows


@dataclass(frozen=True)
class Responses:
    """Of all sites."""

    sites: dict[str, Response]
    text_rows: int
    task_rows: int

    @property
    def typical(self) -> float:
        """The median over sites."""
        return median(each.typical for each in self.sites.values())

    @property
    def largest(self) -> float:
        """The largest over sites."""
        return max(each.largest for each in self.sites.values())

    def sentence(self) -> str:
        """Say it in a sentence."""
        return (
            f"the update's response to {self.text_rows} held-out rows of text is {self.typical:.1%} of that to the "
            f"task's rows (median over sites; the largest to any token at any site {self.largest:.1%})"
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        sites = {name: each._asdict() for name, each in self.sites.items()}
        return {"typical": self.typical, "largest": self.largest} | asdict(self) | {"sites": sites}


def responses(
    host: Host, task: Sequence[TokenizedConversation], text: Sequence[TokenizedConversation]
) -> Responses:
    """Run the adapted model over rows of the task and general text, and measure what the update adds at each site.

    Every process must call it.
    """
    factors = {site.name: (site.A.detach(), site.scaling * site.B.detach()) for site in host.whole_sites()}
    found = [_Lengths(factors) for _ in range(2)]
    for lengths, rows in zip(found, (task, text), strict=True):
        with watched(host, host.sites, lengths.see):
            for batch in batches_of(host, rows):
                lengths.mask = batch["attention_mask"].bool()
                model_logits(host.model, batch | {"logits_to_keep": ONE_PLACE})
    ours, theirs = found
    sites = {}
    for name in factors:
        size = ours.root_mean_square(name)
        sites[name] = Response(theirs.root_mean_square(name) / size, theirs.largest[name] / size)
    return Responses(sites, len(text), len(task))


class _Lengths:
    """Collects lengths of s B A x."""

    def __init__(self, factors: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.mask = torch.ones(0, dtype=torch.bool)
        self.largest: dict[str, float] = {}
        self._factors = factors
        self._squares: dict[str, float] = {}
        self._tokens: dict[str, int] = {}

    def see(self, name: str, x: Tensor) -> None:
        A, B = self._factors[name]
        lengths = (x[self.mask].to(A.dtype) @ A.mT @ B.mT).norm(dim=-1)
        self.largest[name] = max(self.largest.get(name, 0.0), float(lengths.max()))
        self._squares[name] = self._squares.get(name, 0.0) + float(lengths.double().square().sum())
        self._tokens[name] = self._tokens.get(name, 0) + len(lengths)

    def root_mean_square(self, name: str) -> float:
        """Return it, with a floor so that an update of zero can be divided by."""
        return max((self._squares[name] / self._tokens[name]) ** 0.5, 1e-30)
