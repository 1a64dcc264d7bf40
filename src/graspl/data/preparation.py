"""Tokenizing many rows: in several processes, once, and from the cache of `datasets` afterwards."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, config
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from graspl import __version__
from graspl.adapters.answers import IGNORED
from graspl.data.rows import Conversation
from graspl.data.tokens import TokenizedConversation, tokenize
from graspl.errors import GrasplError

TooLong = Literal["error", "drop", "truncate"]
MANY_ROWS = 2000  # From here on tokenizing takes more than a few seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRow:
    """What becomes of one row."""

    row: Conversation  # As it was read
    length: int  # Its tokens
    tokens: TokenizedConversation | None  # What is trained on, None where it is too long to be

    @property
    def is_cut(self) -> bool:
        """Whether its end is left out."""
        return self.tokens is not None and len(self.tokens) < self.length


def prepare_each(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], *, max_length: int, too_long: TooLong
) -> list[PreparedRow]:
    """Tokenize rows, and cut those that are too long or leave out their tokens; with `error` the caller says so."""
    if not rows:
        raise GrasplError("data: no rows are left; give more rows or a smaller validation_share")
    every = zip(tokenize_rows(tokenizer, rows), rows, strict=True)
    return [PreparedRow(row, len(each), _fitted(each, max_length, too_long)) for each, row in every]


def prepare_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], *, max_length: int, too_long: TooLong
) -> list[TokenizedConversation]:
    """Tokenize rows, and stop at, drop or cut those that are too long."""
    fitted = prepare_each(tokenizer, rows, max_length=max_length, too_long=too_long)
    if too_long == "error":
        refuse_too_long(fitted, max_length)
    kept = [each.tokens for each in fitted if each.tokens is not None]
    if not kept:
        raise GrasplError(f"data.max_length: every row is longer than {max_length} tokens; raise it")
    if len(kept) < len(rows):
        log.warning("data: %d of %d rows were too long and dropped", len(rows) - len(kept), len(rows))
    longest, limit = max(len(row) for row in kept), tokenizer.model_max_length
    if longest > limit:  # only a warning, since some tokenizers name too small a limit
        log.warning(
            f"data.max_length: the longest row has {longest} tokens, the tokenizer's model_max_length is {limit}. Beyond its "
            f"limit a model answers badly or fails: set max_length to {limit}, and too_long to drop or truncate"
        )
    return kept


def refuse_too_long(rows: Sequence[PreparedRow], max_length: int) -> None:
    """Refuse the first row that is too long; nothing where none is."""
    for each in rows:
        if each.length > max_length:
            fix = "raise it or set data.too_long"
            raise GrasplError(
                f"{each.row.origin}: has {each.length} tokens, data.max_length is {max_length}; {fix}"
            )


def _fitted(row: TokenizedConversation, max_length: int, too_long: TooLong) -> TokenizedConversation | None:
    """Return the row, cut if needed, or None to leave it out: a row cut before its answer teaches nothing."""
    if len(row) <= max_length:
        return row
    labels = row.labels[:max_length]
    if too_long != "truncate" or all(label == IGNORED for label in labels):
        return None
    return TokenizedConversation(row.input_ids[:max_length], labels, row.prompt)


def tokenize_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], *, processes: int | None = None
) -> list[TokenizedConversation]:
    """Return every row as ids, in order; many rows are cached by content, tokenizer, chat template and graspl's version."""
    if len(rows) < MANY_ROWS:
        return [tokenize(tokenizer, row.messages, origin=row.origin, tools=row.tools) for row in rows]
    # As text, since messages of one row may have fields that those of another do not
    table = Dataset.from_dict(
        {
            "messages": [json.dumps(row.messages) for row in rows],
            "tools": [json.dumps(row.tools) for row in rows],
            "origin": [row.origin for row in rows],
        }
    )
    backend: Any = tokenizer.backend_tokenizer
    fingerprint = Hasher.hash(
        [__version__, *table["messages"], *table["tools"], backend.to_str(), tokenizer.chat_template]
    )
    folder = Path(config.HF_DATASETS_CACHE) / "graspl"
    folder.mkdir(parents=True, exist_ok=True)
    made = table.map(
        _tokenized,
        fn_kwargs={"tokenizer": tokenizer},
        num_proc=processes or min(8, os.cpu_count() or 1),
        cache_file_name=str(folder / f"tokens-{fingerprint}.arrow"),
        new_fingerprint=fingerprint,
        remove_columns=table.column_names,
        desc="tokenizing",
    )
    columns: list[Any] = [made[name][:] for name in ("input_ids", "labels", "prompt")]
    return [TokenizedConversation(*values) for values in zip(*columns, strict=True)]


def _tokenized(row: dict[str, str], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    turns, tools = json.loads(row["messages"]), json.loads(row["tools"])
    return vars(tokenize(tokenizer, turns, origin=row["origin"], tools=tools))
