"""What is measured of a suite, with the adapter and without."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, SumMetric

from graspl.evaluation.logprobs import answer_mask, candidate_logprobs, kl_to_base, text_scores
from graspl.evaluation.metrics import AxisScores, ChoiceShares, ItemValues, PairMargins, TextScores

SIDES = ("", "base_")  # Prefix of what the adapted model scores, and of what the base model scores


class SuiteEvaluator:
    """Measures one suite, of choices or of text; the first batch says which.

    Every value weighs the same over batches and processes.
    """

    def __init__(self) -> None:
        self._scores: dict[str, Metric] = {}
        self._items: dict[str, ItemValues] = {}
        self._kl, self._num_items = MeanMetric(), SumMetric()

    @property
    def seen(self) -> bool:
        """Whether a batch was given."""
        return bool(self._scores)

    def update(self, batch: dict[str, Any], logits: Tensor, base_logits: Tensor) -> None:
        """Take one batch of choices or of text, and its logits (rows, L, vocabulary) with the adapter and without."""
        choices = "candidate_ids" in batch
        if not self._scores:
            self._start(batch, logits.device)
        for side, each in zip(SIDES, (logits, base_logits), strict=True):
            scores: Any = candidate_logprobs(each, batch) if choices else text_scores(each, batch["labels"])
            self._scores[side].update(scores, batch)
            if choices:
                self._items[side].update(scores, batch)
        self._kl.update(kl_to_base(logits, base_logits, answer_mask(batch, logits.shape[1])))
        self._num_items.update(int(batch["num_items"]) if choices else len(batch["labels"]))

    def _start(self, batch: dict[str, Any], device: torch.device) -> None:
        """Make the metrics of this kind of suite."""
        if "candidate_ids" in batch:
            self._items = {side: ItemValues().to(device) for side in SIDES}
        self._scores = {side: _scores(batch).to(device) for side in SIDES}
        # Single precision loses digits over the many tokens of a suite
        self._kl = self._kl.to(device).set_dtype(torch.float64)
        self._num_items = self._num_items.to(device)

    def compute(self) -> dict[str, float]:
        """Return the scores by name, `kl` (nats an answer token) and `num_items`, over all processes."""
        assert self._scores, "update comes first"
        scores = {
            f"{side}{name}": float(value)
            for side, metric in self._scores.items()
            for name, value in metric.compute().items()
        }
        return scores | {"kl": float(self._kl.compute()), "num_items": int(self._num_items.compute())}

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
