"""How an adapter responds to what its sites read: general text against the task's rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

from torch import Tensor

from graspl.adapters.forward import ONE_PLACE, model_logits
from graspl.data.tokens import TokenizedConversation
from graspl.host import Host
from graspl.starts.moments import answer_starts, batches_of, watched

# Median response of A to general text before training. On development tasks a null space held below the first, and removed
# little from the second on (docs/experiments.md).
HOLDS, FAILS = 0.35, 0.5
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
        return (
            f"{self.typical:.1%} of that to the task's rows, {self.starts:.1%} where answers begin "
            f"(medians over sites; the largest to a token at any site {self.largest:.1%})"
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        whole = {"typical": self.typical, "starts": self.starts, "largest": self.largest}
        rows = {"text_rows": self.text_rows, "task_rows": self.task_rows}
        return whole | rows | {"sites": {name: each._asdict() for name, each in self.sites.items()}}


def responses(
    host: Host,
    task: Sequence[TokenizedConversation],
    text: Sequence[TokenizedConversation],
    *,
    finished: bool = True,
) -> Responses:
    """Run the model over rows of the task and general text, and measure what each site's adapter makes of them.

    Of a finished adapter that is s B A x in the adapted model, and else A x in the base model. Every process must call it.
    """
    factors = {
        site.name: (site.A.detach(), site.scaling * site.B.detach() if finished else None)
        for site in host.whole_sites()
    }
    found = [_Lengths(factors) for _ in range(2)]
    for lengths, rows in zip(found, (task, text), strict=True):
        with watched(host, host.sites, lengths.see):
            for batch in batches_of(host, rows):
                lengths.masks = [batch["attention_mask"].bool(), answer_starts(batch["labels"])]
                batch["logits_to_keep"] = ONE_PLACE
                if finished:
                    model_logits(host.model, batch)
                else:
                    host.base_forward(batch)
    sites = {}
    for name in factors:
        ours, theirs = (each.sizes(name) for each in found)
        largest = found[1].largest[name]
        sites[name] = Response(theirs[0] / ours[0], theirs[1] / ours[1], largest / ours[0])
    return Responses(sites, len(text), len(task))


class _Lengths:
    """Collects lengths of s B A x or A x, over all tokens and over those where answers begin."""

    def __init__(self, factors: dict[str, tuple[Tensor, Tensor | None]]) -> None:
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
