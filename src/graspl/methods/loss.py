"""The training loss of every method."""

from torch import Tensor
from torch.nn import functional as F


def summed_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy summed over the answer tokens, (), in nats, and their number, ().

    Args:
        logits: (b, L, vocabulary).
        labels: (b, L), -100 off the answers.
    """
    targets = labels[:, 1:]
    total = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="sum")
    return total, (targets != -100).sum()
