"""Where a training batch predicts answers."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Forward = Callable[[dict[str, Any]], Any]
"""Runs a model on a batch."""


def answer_places(labels: Int[Tensor, "rows length"]) -> Bool[Tensor, "rows length"]:
    """Return the places that predict an answer token: each stands one before its token.

    Args:
        labels: (rows, L), -100 off the answers.
    """
    places = torch.zeros_like(labels, dtype=torch.bool)
    places[:, :-1] = labels[:, 1:] != -100
    return places


def first_rows(batch: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a batch of the first rows of another, without what has no entry for each row."""
    rows = len(batch["labels"])
    return {
        name: value[:count]
        for name, value in batch.items()
        if isinstance(value, Tensor | list) and len(value) == rows
    }
