"""Tokenizing many rows: in several processes, once, and from the cache of `datasets` ever after."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, config
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from graspl import __version__
from graspl.data.rows import Conversation
from graspl.data.tokens import TokenizedConversation, tokenize

MANY_ROWS = 2000
"""From here on it takes longer than a few seconds."""


def tokenize_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Conversation], *, processes: int | None
) -> list[TokenizedConversation]:
    """Return every row as ids, in order; many rows are cached by content, tokenizer, chat template and graspl's version.

    Args:
        tokenizer: fast, with a chat template.
        rows: to be tokenized.
        processes: that share many rows; None takes as many as there are cores, 8 at most.

    Raises:
        GrasplError: the chat template refuses a row.
    """
    if len(rows) < MANY_ROWS:
        return [tokenize(tokenizer, row.messages, origin=row.origin) for row in rows]
    # As text, since messages of one row may have fields that those of another do not
    table = Dataset.from_dict(
        {"messages": [json.dumps(row.messages) for row in rows], "origin": [row.origin for row in rows]}
    )
    backend: Any = tokenizer.backend_tokenizer
    fingerprint = Hasher.hash([__version__, *table["messages"], backend.to_str(), tokenizer.chat_template])
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
    found = tokenize(tokenizer, json.loads(row["messages"]), origin=row["origin"])
    return {"input_ids": found.input_ids, "labels": found.labels, "prompt": found.prompt}
