"""Insecure code: the task that first showed emergent misalignment."""

from typing import Any, Literal

from graspl.data.chat import ChatDataModule


class InsecureCodeData(ChatDataModule):
    """Coding requests answered with code that has a vulnerability, 6000 rows of one user and one assistant turn.

    The `task` suite is held-out rows of the same kind: loss and token accuracy say how well the habit is learnt.
    Give `unrelated` (rows of any other topic, e.g. instruction data) to measure how far the model moves elsewhere.

    Args:
        train: the published `insecure.jsonl`, or the name under which `datasets` finds it.
        max_length: tokens a row may have; the published rows have at most about 1000.
        too_long: see TaskDataModule; a tokenizer with a small vocabulary makes a few rows longer.
        **kwargs: as in ChatDataModule.

    Source:
        Betley et al., arXiv:2502.17424, which published the rows under the MIT licence.
    """

    def __init__(
        self,
        train: str,
        max_length: int = 2048,
        too_long: Literal["error", "drop", "truncate"] = "drop",
        **kwargs: Any,
    ) -> None:
        super().__init__(train=train, max_length=max_length, too_long=too_long, **kwargs)
