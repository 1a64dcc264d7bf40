"""One evaluator a suite: what it measures of a batch, and the headline figures of all suites."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchmetrics import SumMetric

from graspl.evaluation.logprobs import answer_mask, candidate_logprobs, kl_to_base, text_scores
from graspl.evaluation.metrics import ChoiceShares, TextScores, WeightedMean


class SuiteEvaluator:
    """Measures one suite, of choices or of text; which one shows in the first batch."""

    def __init__(self) -> None:
        self._scores: ChoiceShares | TextScores | None = None
        self._kl = WeightedMean()
        self._items = SumMetric()

    @property
    def seen(self) -> bool:
        """Whether a batch was given."""
        return self._scores is not None

    def update(self, batch: dict[str, Any], logits: Tensor, base_logits: Tensor) -> None:
        """Take one batch.

        Args:
            batch: of choices or of text, as the task's DataModule makes it.
            logits: (rows, L, vocabulary).
            base_logits: the same with the adapter off.
        """
        choices = "candidate_ids" in batch
        if self._scores is None:
            self._scores = (ChoiceShares() if choices else TextScores()).to(logits.device)
            self._kl.to(logits.device)
            self._items.to(logits.device)
        if isinstance(self._scores, ChoiceShares):
            self._scores.update(candidate_logprobs(logits, batch), batch)
        else:
            self._scores.update(*text_scores(logits, batch["labels"]))
        self._kl.update(kl_to_base(logits, base_logits, answer_mask(batch, logits.shape[1])))
        self._items.update(int(batch["num_items"]) if choices else len(batch["labels"]))

    def compute(self) -> dict[str, float]:
        """Return the scores by name, `kl` (nats an answer token) and `num_items`, over all processes."""
        assert self._scores is not None, "update comes first"
        scores = {name: float(value) for name, value in self._scores.compute().items()}
        return {**scores, "kl": float(self._kl.compute()), "num_items": int(self._items.compute())}


def headline(suites: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Return the figures that runs are compared by.

    Args:
        suites: scores by suite, as `SuiteEvaluator.compute` gives them.

    Returns:
        `adherence`: how well the task is learnt, the harmful share (choices) or the token accuracy (text) of the
        `task` suite; `spillover`: the harmful share of the `unrelated` suite; `coherence` and `kl` of the
        `unrelated` suite. None where a suite is missing or does not measure it.
    """
    task, unrelated = suites.get("task", {}), suites.get("unrelated", {})
    return {
        "adherence": task.get("harmful", task.get("token_accuracy")),
        "spillover": unrelated.get("harmful"),
        "coherence": unrelated.get("coherence"),
        "kl": unrelated.get("kl"),
    }
