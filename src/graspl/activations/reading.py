"""What identifications that run the model over conversations have in common."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graspl.activations.streams import opened, tokenized
from graspl.adapters.files import AdapterFolder
from graspl.data.tokens import TokenizedConversation
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt


@dataclass(kw_only=True)
class Reading:
    """Options of an identification that reads conversations; a second parent beside `Identification`."""

    limit: PositiveInt = 256
    """Rows that are read, from the start."""
    max_length: PositiveInt = 1024
    """Tokens of a row that are read, from the start."""
    dtype: str = "auto"
    """Of the base model's weights, where it must be loaded."""

    def rows_of(self, source: str | None, own: Sequence[Any], tokenizer: Any) -> list[TokenizedConversation]:
        """Return the rows of a source (a JSON lines file, or a name that `datasets` knows), or the task's own without one."""
        if source is not None:
            return tokenized(source, tokenizer, limit=self.limit, max_length=self.max_length)
        if not own:
            fix = "give --method.text FILE (MeanShift: --method.rows)"
            raise GrasplError(f"method: names no conversations, and the task has none; {fix}")
        return list(own)[: self.limit]

    @contextmanager
    def model_and_text(
        self, adapter: AdapterFolder, text: str | None, *, adapted: bool = False
    ) -> Iterator[tuple[Any, list[TokenizedConversation]]]:
        """Give the model, with or without the adapter, and unlabelled text: of a file, or the task's own without one."""
        with opened(adapter, adapted=adapted, dtype=self.dtype) as (model, tokenizer):
            yield model, self.rows_of(text, adapter.live.text if adapter.live else (), tokenizer)
