"""A rival: stay near the base model's distribution."""

from typing import Any, Literal

from torch import Tensor

from graspl.data.batches import PaddedCollator
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError
from graspl.evaluation.logprobs import answer_mask, kl_to_base
from graspl.methods.lora import LoRALitModule


class KLLitModule(LoRALitModule):
    """LoRA with a penalty on the divergence from the base model, on the task's rows or on unlabelled text off the task.

    loss = cross-entropy + weight * KL(model || base), the mean over the places that predict answer tokens.

    Args:
        weight: of the divergence; 0 trains as LoRA does, bit for bit.
        rows: the task's rows (`task`), on which it works against the task, or the unlabelled conversations that GRASP's
            directions are found in (`text`: `data.text`, or the task's own).
        rows_per_step: of the text, one batch after the other.
        max_length: tokens of a row of the text; longer ones are left out.
        **kwargs: as in LoRALitModule.

    Source:
        The KL defence of arXiv:2508.06249, which takes the divergence on the task's rows; text off the task is the usual
        variant. It costs a second forward pass, on text a third.
    """

    def __init__(
        self,
        weight: float = 0.1,
        rows: Literal["task", "text"] = "task",
        rows_per_step: int = 8,
        max_length: int = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if weight < 0:
            raise GrasplError(f"model.weight: {weight} is below 0")
        self.weight = weight
        self.rows = rows
        self.rows_per_step = rows_per_step
        self.max_length = max_length
        self._others: list[TokenizedConversation] = []

    def on_train_start(self) -> None:
        """Read the text to stay near the base model on.

        Raises:
            GrasplError: the task has none, or no row that is short enough.
        """
        super().on_train_start()
        if self.rows == "text" and self.weight:
            read = self.trainer.datamodule.text_conversations()  # type: ignore[attr-defined]
            self._others = [row for row in read if len(row) <= self.max_length]
            if not self._others:
                raise GrasplError(
                    f"model.rows: the task has no text of at most {self.max_length} tokens a row; give a file as data.text"
                )

    def extra_loss(self, batch: dict[str, Any], logits: Tensor) -> Tensor | None:
        """Return the divergence, weighed."""
        if not self.weight:
            return None
        if self._others:
            batch = self._next_rows()
            logits = self(batch)
        mask = answer_mask(batch, logits.shape[1])
        return self.weight * kl_to_base(logits, self.base_forward(batch), mask).mean()

    def _next_rows(self) -> dict[str, Any]:
        """Return the step's rows; which ones follows from the step alone, so a resumed run goes on with the same."""
        first = self.global_step * self.rows_per_step
        chosen = [self._others[(first + index) % len(self._others)] for index in range(self.rows_per_step)]
        collate = PaddedCollator(int(self.trainer.datamodule.tokenizer.pad_token_id))  # type: ignore[attr-defined]
        return {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in collate(chosen).items()
        }
