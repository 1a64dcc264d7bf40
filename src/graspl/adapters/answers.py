"""Where a batch predicts answer tokens."""

from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # Label of a token that is not trained on; PyTorch's cross-entropy skips it


def next_tokens(labels: Int[Tensor, "rows length"]) -> Int[Tensor, "rows length"]:
    """Return the label that each place predicts: the next token's, and IGNORED at the last place."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def answer_places(labels: Int[Tensor, "rows length"]) -> Bool[Tensor, "rows length"]:
    """Return the places whose logits predict an answer token: each is one before its token."""
    return next_tokens(labels) != IGNORED
