"""A trial before training: how much of a naive fit's side effect would a fit from here keep?

A side effect moves what the model says off the task. While it is small, the divergence from the base model grows with its
square. So where two fits have moved the task equally far, the root of the ratio of their divergences on general text is the
share of one's side effect that the other one has. The task is rows that the trial does not train on. Their loss would not do:
of a task that the base model half knows already it hardly falls.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from graspl.adapters.loss import answer_logits
from graspl.adapters.sharding import like
from graspl.data.tokens import TokenizedConversation
from graspl.evaluation.logprobs import kl_to_base
from graspl.host import Host
from graspl.starts.moments import batches_of
from graspl.starts.response import Outlook
from graspl.starts.short_fits import take_step, thrown_away, without_end

log = logging.getLogger(__name__)
NAIVE_RATE = 2e-4  # Of the naive fit: the usual one for LoRA, as configs/methods/naive.yaml has it
LONGER = 3  # A naive fit at that rate may take so many times as many steps to move the task as far
HELD_OUT = 20  # Rows of the task at most, the last ones, so that a subject whose rows lie together is held out as a whole
HOLDS = 0.5  # Share kept below which a null space holds, which is to remove at least half
TINY = 1e-12
FEW = 4  # Rows in a forward pass: two models' logits of all their answer tokens are held at once
Rows = Sequence[TokenizedConversation]


@dataclass
class Course:
    """How far a short fit had moved from the base model where it was measured: on the task, and on each text.

    Distances are roots of KL(model || base), the mean over answer tokens, in nats.
    """

    task: list[float] = field(default_factory=lambda: [0.0])
    texts: dict[str, list[float]] = field(default_factory=dict)

    @property
    def furthest(self) -> float:
        """The largest distance on the task before the fit went astray, if it did."""
        return max(takewhile(isfinite, self.task))

    def moved_at(self, task: float, text: str) -> float:
        """Return how far a text had moved when the task had first moved so far, between measurements along a line."""
        after = next(place for place in range(1, len(self.task)) if self.task[place] >= task)
        low, high = self.task[after - 1 : after + 1]
        share = (task - low) / (high - low)
        before, then = self.texts[text][after - 1 : after + 1]
        return before + share * (then - before)


def deciding(kept: Mapping[str, float]) -> str:
    """Return the name of the text on which the share kept decides: the user's, else what the model wrote itself.

    With other seeds a model writes other text, and the share kept on it may lie on either side of one half.
    """
    return "text" if "text" in kept else next(iter(kept))


@dataclass(frozen=True)
class Trial:
    """What two short fits showed: one from here, and a naive one."""

    kept: dict[str, float]
    """The share of the naive fit's side effect that a fit from here keeps, by text, where both have moved the task as far."""
    reach: float
    """How far it moves the task, over how far the naive fit does in up to three times as many steps."""

    @property
    def outlook(self) -> Outlook:
        """Whether the null space will hold."""
        return "likely to hold" if self.kept[deciding(self.kept)] < HOLDS else "not likely to hold"

    def sentence(self) -> str:
        """Say it in a few words."""
        kept = ", ".join(f"{share:.0%} on {name.replace('_', ' ')}" for name, share in self.kept.items())
        return (
            f"{self.outlook}: in the trial it kept {kept} of the naive fit's side effect, at an equal change on the "
            f"task (its change there was {self.reach:.0%} of the naive fit's in all)"
        )


def tried(
    host: Host, plain: Mapping[str, Tensor], texts: Mapping[str, Rows], *, steps: int, train_A: bool
) -> Trial | None:
    """Take a few steps from here and naive ones, and put everything back.

    None, and a warning, where the rows are too few or one of the fits moves nothing. Every process must call it.

    Args:
        host: the module that trains, before the first step, with B zero.
        plain: A of each site of a naive fit, (r, in).
        texts: general text that was not read, by name.
        steps: from here; the naive fit ends once it has moved the task as far.
        train_A: whether the fit from here trains A too.
    """
    rows = host.trainer.datamodule.train_conversations()
    few = min(HELD_OUT, len(rows) // 4)
    if not few or len(rows) - few < host.trainer.world_size:
        log.warning("null space: a trial holds out a quarter of the rows, and %d are too few", len(rows))
        return None
    with thrown_away(host):
        trained = [p for site in host.sites for p in ((site.A, site.B) if train_A else (site.B,))]
        short = _ShortFit(host, rows[:-few], rows[-few:], texts, every=steps)
        ours = short.course(trained, host.optimizer(trained), steps)
    with thrown_away(host) as trained:
        with torch.no_grad():
            for site in host.sites:
                site.A.copy_(like(plain[site.name].to(site.A.device, site.A.dtype), site.A, split=True))
        usual = AdamW(trained, lr=NAIVE_RATE, weight_decay=0.0, fused=True)
        naive = short.course(trained, usual, LONGER * steps, enough=ours.furthest)
    equal = min(ours.furthest, naive.furthest)
    kept = {
        name: ours.moved_at(equal, name) / max(naive.moved_at(equal, name), TINY) for name in texts if equal
    }
    if not kept or not all(map(isfinite, kept.values())):
        log.warning("null space: one of the trial's fits moved nothing or failed, so it foresees nothing")
        return None
    return Trial(kept, ours.furthest / naive.furthest)


@dataclass
class _ShortFit:
    """Trains on rows of the task and measures on others, and on texts, every so many steps."""

    host: Host
    rows: Rows
    held_out: Rows
    texts: Mapping[str, Rows]
    every: int

    def course(
        self, trained: list[Any], optimizer: Optimizer, steps: int, enough: float = float("inf")
    ) -> Course:
        """Train so many steps, or until the task has moved `enough`."""
        course = Course(texts={name: [0.0] for name in self.texts})
        batches = without_end(self.host.trainer.datamodule.loader_of(self.rows))
        for step in range(1, steps + 1):
            take_step(self.host, trained, optimizer, batches)
            if step % self.every and step < steps:
                continue
            course.task.append(_distance(self.host, self.held_out))
            for name, rows in self.texts.items():
                course.texts[name].append(_distance(self.host, rows))
            if course.task[-1] >= enough:
                break
        return course


@torch.no_grad()
def _distance(host: Host, rows: Rows) -> float:
    """Return the root of KL(model || base), the mean over the rows' answer tokens, in nats."""
    found: list[Tensor] = []
    with _as_validated(host):
        for batch in batches_of(host, rows, FEW):
            ours, base = (answer_logits(host.model, run, batch) for run in (host, host.base_forward))
            found.append(kl_to_base(ours, base, torch.ones_like(ours[:, 0], dtype=torch.bool)))
    return float(torch.cat(found).double().mean().clamp_min(0).sqrt())


@contextmanager
def _as_validated(host: Host) -> Iterator[None]:
    """Run the model as at a validation, without edits."""
    assert host.model is not None, "configure_model comes first"
    training = host.model.training
    host.model.eval()
    try:
        with host.unedited(), host.trainer.precision_plugin.val_step_context():
            yield
    finally:
        host.model.train(training)
