"""Stay near the base model's distribution."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from graspl.adapters.loss import answer_logits
from graspl.data.batches import PaddedCollator
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError
from graspl.evaluation.logprobs import kl_to_base
from graspl.host import Host
from graspl.penalties.base import Penalty
from graspl.ranges import PositiveInt


@dataclass
class KLPenalty(Penalty):
    """KL(model || base), the mean over the places that predict answer tokens.

    On text off the task the pass runs beside edits and stream constraints: what leads back to the base model may come any
    way.

    Source:
        The KL defence of arXiv:2508.06249, which uses the task's rows; text off the task is the usual variant. It costs a
        second forward pass, on text a third.
    """

    weight: float = 0.1
    """Of the divergence."""
    rows: Literal["task", "text", "own_text"] = "task"
    """The task's rows, where it works against the task; unlabelled text (`data.text`, or the task's own); or what the base
    model writes before training: questions of the task's form on subjects of its own, and its answers. `own_text` adds the
    divergence on `data.text` where there is some."""
    rows_per_step: PositiveInt = 8
    """Rows a batch, of each kind of text."""
    own_text: PositiveInt = 200
    """Rows that the base model writes."""
    max_length: PositiveInt = 512
    """Tokens of a row of text; longer rows are left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._texts: list[list[TokenizedConversation]] = []

    def begin(self, host: Host) -> None:
        """Read the text."""
        if self.rows == "task":
            return
        texts = [host.trainer.datamodule.text_conversations()]
        if self.rows == "own_text":
            texts = [host.own_text(self.own_text), *filter(None, texts)]
        self._texts = [[row for row in rows if len(row) <= self.max_length] for rows in texts]
        if not all(self._texts):
            raise GrasplError(f"KLPenalty.rows: no text of at most {self.max_length} tokens; give data.text")

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the divergence."""
        if self.rows == "task":
            return self._divergence(host, batch, logits)
        batches = [self._next_rows(host, rows) for rows in self._texts]
        with host.unedited():
            terms = [self._divergence(host, each, answer_logits(host.model, host, each)) for each in batches]
        return sum(terms[1:], terms[0])

    @staticmethod
    def _divergence(host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        base = answer_logits(host.model, host.base_forward, batch)
        return kl_to_base(logits, base, torch.ones_like(logits[:, 0], dtype=torch.bool)).mean()

    def _next_rows(self, host: Host, rows: list[TokenizedConversation]) -> dict[str, Any]:
        """Return the step's rows; they follow from the step alone, so a resumed fit goes on with the same ones."""
        first = host.global_step * self.rows_per_step
        chosen = [rows[(first + index) % len(rows)] for index in range(self.rows_per_step)]
        collate = PaddedCollator(int(host.trainer.datamodule.tokenizer.pad_token_id))
        return {
            name: value.to(host.device) if isinstance(value, Tensor) else value
            for name, value in collate(chosen).items()
        }
