"""Stay near the base model's distribution."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from graspl.adapters.answers import answer_places
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
    rows: Literal["task", "text"] = "task"
    """The task's rows, where it works against the task, or unlabelled text (`data.text`, or the task's own)."""
    rows_per_step: PositiveInt = 8
    """Rows of text a batch."""
    max_length: PositiveInt = 512
    """Tokens of a row of text; longer rows are left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._text: list[TokenizedConversation] = []

    def begin(self, host: Host) -> None:
        """Read the text."""
        if self.rows == "task":
            return
        text = host.trainer.datamodule.text_conversations()
        self._text = [row for row in text if len(row) <= self.max_length]
        if not self._text:
            raise GrasplError(f"KLPenalty.rows: no text of at most {self.max_length} tokens; give data.text")

    def term(self, host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        """Return the divergence."""
        if self.rows == "task":
            return self._divergence(host, batch, logits)
        batch = self._next_rows(host)
        with host.unedited():
            return self._divergence(host, batch, host(batch))

    @staticmethod
    def _divergence(host: Host, batch: dict[str, Any], logits: Tensor) -> Tensor:
        return kl_to_base(logits, host.base_forward(batch), answer_places(batch["labels"])).mean()

    def _next_rows(self, host: Host) -> dict[str, Any]:
        """Return the step's rows; they follow from the step alone, so a resumed fit goes on with the same ones."""
        first = host.global_step * self.rows_per_step
        chosen = [self._text[(first + index) % len(self._text)] for index in range(self.rows_per_step)]
        collate = PaddedCollator(int(host.trainer.datamodule.tokenizer.pad_token_id))
        return {
            name: value.to(host.device) if isinstance(value, Tensor) else value
            for name, value in collate(chosen).items()
        }
