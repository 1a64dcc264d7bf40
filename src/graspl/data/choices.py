"""Questions with answers to choose from, scored by log-probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from graspl.data.rows import Message
from graspl.data.tokens import IGNORED, render, tokenize_candidate

CHOICE_KINDS = ("harmful", "good", "other")
"""Kinds of answer, by their number in a batch."""


@dataclass(frozen=True)
class ChoiceItem:
    """One question and the answers whose probabilities are measured."""

    messages: list[Message]
    """The prompt; its last turn is the user's."""
    candidates: list[str]
    """Answers, or beginnings of answers; none is the beginning of another."""
    kinds: list[str]
    """Kind of each candidate, one of `CHOICE_KINDS`."""


def collate_choices(items: Sequence[ChoiceItem], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Make one batch; answers to one question that begin alike share a row.

    Args:
        items: c candidates in all.
        tokenizer: fast, with a chat template and a padding token.

    Returns:
        `input_ids` and `attention_mask` (rows, L), padded on the right; `candidate_ids` (c, m) padded
        with -100; `candidate_row` (c,); `candidate_start` (c,), the position whose logits predict the
        candidate's first token; `candidate_item` (c,); `candidate_kind` (c,), an index into `CHOICE_KINDS`;
        `num_items`; `prompts`, the rendered text of each item.

    Raises:
        GrasplError: the chat template refuses an item.
    """
    rows: list[list[int]] = []
    columns: dict[str, list[int]] = {"row": [], "start": [], "item": [], "kind": []}
    answers, prompts = [], []
    for index, item in enumerate(items):
        origin = f"choice item {index}"
        prompts.append(render(tokenizer, item.messages, origin=origin, prompt=True))
        encoded = [tokenize_candidate(tokenizer, item.messages, c, origin=origin) for c in item.candidates]
        # The last token of an answer is predicted, never read
        stems = [tuple(prompt + answer[:-1]) for prompt, answer in encoded]
        place = _place(stems, first_row=len(rows))
        rows.extend(list(stem) for stem in place["kept"])
        for (prompt, answer), row, kind in zip(encoded, place["row"], item.kinds, strict=True):
            answers.append(torch.tensor(answer))
            columns["row"].append(row)
            columns["start"].append(len(prompt) - 1)
            columns["item"].append(index)
            columns["kind"].append(CHOICE_KINDS.index(kind))
    pad = int(tokenizer.pad_token_id)  # type: ignore[arg-type]
    return {
        "input_ids": pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence(
            [torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True
        ),
        "candidate_ids": pad_sequence(answers, batch_first=True, padding_value=IGNORED),
        **{f"candidate_{name}": torch.tensor(column) for name, column in columns.items()},
        "num_items": len(items),
        "prompts": prompts,
    }


def _place(stems: list[tuple[int, ...]], *, first_row: int) -> dict[str, list[Any]]:
    """Keep the stems that begin no longer one, and give every stem its row."""
    kept: list[tuple[int, ...]] = []
    for stem in sorted(set(stems), key=len, reverse=True):
        if not any(longer[: len(stem)] == stem for longer in kept):
            kept.append(stem)
    row = [next(i for i, longer in enumerate(kept) if longer[: len(stem)] == stem) for stem in stems]
    return {"kept": kept, "row": [first_row + i for i in row]}
