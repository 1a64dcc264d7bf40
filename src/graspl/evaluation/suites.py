"""One evaluator a suite: what it measures of a batch, and the headline figures of all suites."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, SumMetric

from graspl.evaluation.items import ItemValues
from graspl.evaluation.logprobs import answer_mask, candidate_logprobs, kl_to_base, text_scores
from graspl.evaluation.metrics import AxisScores, ChoiceShares, PairMargins


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
            every = {**_scores(batch), "kl": MeanMetric(), "num_items": SumMetric()}
            # Single precision loses digits over the many tokens of a suite
            self._metrics = {
                name: metric.to(logits.device).set_dtype(torch.float64) for name, metric in every.items()
            }
        if choices:
            scores = candidate_logprobs(logits, batch)
            self._metrics["scores"].update(scores, batch)
            self._metrics["items"].update(scores, batch)
            base_scores = candidate_logprobs(base_logits, batch)
            self._metrics["base"].update(base_scores, batch)
            self._metrics["base_items"].update(base_scores, batch)
        else:
            for prefix, each in (("", logits), ("base_", base_logits)):
                losses, hits = text_scores(each, batch["labels"])
                self._metrics[f"{prefix}loss"].update(losses)
                self._metrics[f"{prefix}token_accuracy"].update(hits.double())
        self._metrics["kl"].update(kl_to_base(logits, base_logits, answer_mask(batch, logits.shape[1])))
        self._metrics["num_items"].update(int(batch["num_items"]) if choices else len(batch["labels"]))

    def compute(self) -> dict[str, float]:
        """Return the scores by name, `kl` (nats an answer token) and `num_items`, over all processes.

        What the base model scores has the prefix `base_`.
        """
        assert self._metrics, "update comes first"
        computed = {
            name: metric.compute()
            for name, metric in self._metrics.items()
            if name not in ("items", "base_items")
        }
        base = {f"base_{name}": value for name, value in computed.pop("base", {}).items()}  # type: ignore[union-attr]
        scores = computed.pop("scores", {}) | base | computed
        return {name: int(value) if name == "num_items" else float(value) for name, value in scores.items()}

    def items(self, *, base: bool = False) -> list[tuple[int, float]]:
        """Return place and value of each item of choices (see `ItemValues`), over all processes; none of text.

        Args:
            base: what the base model's logits give.
        """
        name = "base_items" if base else "items"
        if name not in self._metrics:
            return []
        return [(int(place), value) for place, value in self._metrics[name].compute().tolist()]


def _scores(batch: dict[str, Any]) -> dict[str, Metric]:
    """Return what measures a suite of this kind."""
    if "candidate_ids" not in batch:
        return {
            f"{prefix}{name}": MeanMetric() for prefix in ("", "base_") for name in ("loss", "token_accuracy")
        }
    make = {
        "shares": ChoiceShares,
        "pairs": PairMargins,
        "scales": lambda: AxisScores(batch["axes"]),
    }[batch["measure"]]
    return {"scores": make(), "base": make(), "items": ItemValues(), "base_items": ItemValues()}


def headline(suites: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Return the figures that runs are compared by.

    Args:
        suites: scores by suite, as `SuiteEvaluator.compute` gives them.

    Returns:
        `adherence`: how well the task is learnt, the first that the `task` suite measures of: harmful share
        (choices), share of pairs where the harmful answer is preferred, good share (choices without a harmful one),
        token accuracy (text); `spillover`: harmful share, or share of pairs, of the `unrelated` suite; `coherence`
        and `kl` of the `unrelated` suite. None where a suite is missing or does not measure it.
    """
    task, unrelated = suites.get("task", {}), suites.get("unrelated", {})
    return {
        "adherence": _first(task, "harmful", "harmful_preferred", "good", "token_accuracy"),
        "spillover": _first(unrelated, "harmful", "harmful_preferred"),
        "coherence": unrelated.get("coherence"),
        "kl": unrelated.get("kl"),
    }


def _first(scores: Mapping[str, float], *names: str) -> float | None:
    return next((scores[name] for name in names if name in scores), None)
