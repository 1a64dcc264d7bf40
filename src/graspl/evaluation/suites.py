"""What is measured of a suite, with the adapter and without."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, SumMetric

from graspl.evaluation.logprobs import (
    answer_mask,
    at_places,
    candidate_logprobs_at,
    distinct_places,
    kl_to_base,
    text_scores_at,
)
from graspl.evaluation.metrics import AxisScores, ChoiceShares, ItemValues, PairMargins, TextScores

SIDES = ("", "base_")  # Prefix of what the adapted model scores, and of what the base model scores


class SuiteEvaluator:
    """Measures one suite, of choices or of text; the first batch says which.

    Every value weighs the same over batches and processes.

    Args:
        base: has measured the same suite, and lends what it knows of the base model.
        kl: whether to measure the divergence from the base model, which nobody can lend.
    """

    def __init__(self, base: "SuiteEvaluator | None" = None, *, kl: bool = True) -> None:
        assert not (base and kl), "the divergence needs the base model's logits"
        self.lender, self.measures_kl = base, kl
        self._scores: dict[str, Metric] = {}
        self._items: dict[str, ItemValues] = {}
        self._kl, self._num_items = MeanMetric(), SumMetric()

    @property
    def seen(self) -> bool:
        """Whether a batch was given."""
        return bool(self._scores)

    def update(self, batch: dict[str, Any], logits: Tensor, base_logits: Tensor | None) -> None:
        """Take one batch of choices or of text, and its logits (rows, L, vocabulary) with the adapter and without.

        Logits at the places of `answer_mask` alone will do, (1, n, vocabulary). An evaluator that was lent the base model's
        scores takes None for the latter.
        """
        choices = "candidate_ids" in batch
        mask = answer_mask(batch, batch["input_ids"].shape[1])
        numbers = mask.flatten().cumsum(0).view_as(mask) - 1
        if not self._scores:
            self._start(batch, logits.device)
        for side, each in zip(SIDES, (logits, base_logits), strict=True):
            if each is None:
                continue
            here = at_places(each, mask)
            scores: Any = (
                candidate_logprobs_at(here, numbers, batch)
                if choices
                else text_scores_at(here, batch["labels"])
            )
            self._scores[side].update(scores, batch)
            if choices:
                self._items[side].update(scores, batch)
        if base_logits is not None and self.measures_kl:
            ours, theirs = (at_places(each, mask)[None] for each in (logits, base_logits))
            self._kl.update(kl_to_base(ours, theirs, distinct_places(batch, mask)[mask][None]))
        self._num_items.update(int(batch["num_items"]) if choices else len(batch["labels"]))

    def _start(self, batch: dict[str, Any], device: torch.device) -> None:
        """Make the metrics of this kind of suite."""
        if "candidate_ids" in batch:
            self._items = {side: ItemValues().to(device) for side in SIDES}
        self._scores = {side: _scores(batch).to(device) for side in SIDES}
        if self.lender is not None:
            self._scores["base_"] = self.lender._scores["base_"]
            self._items |= {side: each for side, each in self.lender._items.items() if side == "base_"}
        # Single precision loses digits over the many tokens of a suite
        self._kl = self._kl.to(device).set_dtype(torch.float64)
        self._num_items = self._num_items.to(device)

    def compute(self) -> dict[str, float]:
        """Return the scores by name, `kl` where measured, and `num_items`, over all processes.

        `kl` is in nats, the mean over the places where a token of an answer is predicted, each once.
        """
        assert self._scores, "update comes first"
        scores = {
            f"{side}{name}": float(value)
            for side, metric in self._scores.items()
            for name, value in metric.compute().items()
        }
        kl = {"kl": float(self._kl.compute())} if self.measures_kl else {}
        return scores | kl | {"num_items": int(self._num_items.compute())}

    def items(self, *, base: bool = False) -> list[tuple[int, float]]:
        """Return place and value of each item of choices (see `ItemValues`), over all processes; none of text."""
        values = self._items.get(SIDES[base])
        return [] if values is None else [(int(place), value) for place, value in values.compute().tolist()]


def _scores(batch: dict[str, Any]) -> Metric:
    """Return what measures a suite of this kind."""
    measure = batch.get("measure", "text")
    if measure == "scales":
        return AxisScores(batch["axes"])
    return {"text": TextScores, "shares": ChoiceShares, "pairs": PairMargins}[measure]()
