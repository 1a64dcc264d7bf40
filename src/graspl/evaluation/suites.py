"""One evaluator a suite: what it measures of a batch, and the headline figures of all suites."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, SumMetric

from graspl.evaluation.logprobs import answer_mask, candidate_logprobs, kl_to_base, text_scores
from graspl.evaluation.metrics import ChoiceShares


class SuiteEvaluator:
    """Measures one suite, of choices or of text; which one shows in the first batch.

    Every value weighs the same over batches and processes, which torchmetrics brings together.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    @property
    def seen(self) -> bool:
        """Whether a batch was given."""
        return bool(self._metrics)

    def update(self, batch: dict[str, Any], logits: Tensor, base_logits: Tensor) -> None:
        """Take one batch.

        Args:
            batch: of choices or of text, as the task's DataModule makes it.
            logits: (rows, L, vocabulary).
            base_logits: the same with the adapter off.
        """
        choices = "candidate_ids" in batch
        if not self._metrics:
            scores = (
                {"shares": ChoiceShares(), "base": ChoiceShares()}
                if choices
                else {"loss": MeanMetric(), "token_accuracy": MeanMetric()}
            )
            every = {**scores, "kl": MeanMetric(), "num_items": SumMetric()}
            # Single precision loses digits over the many tokens of a suite
            self._metrics = {
                name: metric.to(logits.device).set_dtype(torch.float64) for name, metric in every.items()
            }
        if choices:
            self._metrics["shares"].update(candidate_logprobs(logits, batch), batch)
            self._metrics["base"].update(candidate_logprobs(base_logits, batch), batch)
        else:
            losses, hits = text_scores(logits, batch["labels"])
            self._metrics["loss"].update(losses)
            self._metrics["token_accuracy"].update(hits.double())
        self._metrics["kl"].update(kl_to_base(logits, base_logits, answer_mask(batch, logits.shape[1])))
        self._metrics["num_items"].update(int(batch["num_items"]) if choices else len(batch["labels"]))

    def compute(self) -> dict[str, float]:
        """Return the scores by name, `kl` (nats an answer token) and `num_items`, over all processes.

        What the base model scores on choices has the prefix `base_`.
        """
        assert self._metrics, "update comes first"
        computed = {name: metric.compute() for name, metric in self._metrics.items()}
        base = {f"base_{name}": value for name, value in computed.pop("base", {}).items()}  # type: ignore[union-attr]
        scores = computed.pop("shares", {}) | base | computed
        return {name: int(value) if name == "num_items" else float(value) for name, value in scores.items()}


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
