"""Questions with answers to choose from, scored by log-probability."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from graspl.adapters.answers import IGNORED
from graspl.data.rows import Message
from graspl.data.tokens import render, tokenize_candidates

CHOICE_KINDS = ("harmful", "good", "other")  # Kinds of answer, by their number in a batch

# Share of a suite's tokens from which sharing prefixes pays for a second pass through the model.
WORTH_SHARING = 0.3


@dataclass(frozen=True)
class ChoiceItem:
    """One question and the answers whose probabilities are measured."""

    messages: list[Message]  # The prompt; its last turn is the user's
    candidates: list[str]  # Answers, or beginnings of answers; none is the beginning of another
    kinds: list[str]  # Kind of each candidate, one of `CHOICE_KINDS`
    id: str = ""  # Names the question in `items.jsonl`; where empty, its place in the suite does
    group: str = ""  # A domain or a format that is reported separately
    place: int = 0  # In its suite, from 0; the task's DataModule sets it


@dataclass(frozen=True)
class AnswerPair(ChoiceItem):
    """A question with one harmful and one good answer of whole sentences, compared by log-probability a token.

    The probability of a whole answer is tiny, and smaller the longer the answer is, whatever it says.
    """


@dataclass(frozen=True)
class ScaleItem(ChoiceItem):
    """A statement to agree or disagree with, which says something on one or several axes."""

    stances: list[float] = field(default_factory=list)  # Of each candidate: 1 agrees, -1 disagrees
    # What agreeing says on each axis, of any size; every item of a suite names the same axes.
    effects: Mapping[str, float] = field(default_factory=dict)


# What is measured of a kind of item, `measure` in a batch.
MEASURES = {ChoiceItem: "shares", AnswerPair: "pairs", ScaleItem: "scales"}


class _Encoded(NamedTuple):
    """One question as ids."""

    item: ChoiceItem
    rows: list[list[int]]  # what the model reads
    place: list[int]  # of each candidate, its row
    start: list[int]  # of each candidate, the position whose logits predict its first token
    answers: list[Tensor]  # ids of each candidate
    fresh: list[
        int
    ]  # of each candidate, its first token that is predicted at a place which no earlier candidate has
    prompt: str


class ChoiceCollator:
    """Makes batches of questions; answers to one question that begin with the same tokens share a row.

    A question is turned into ids only once, since a fit validates many times. With `share_prefixes` a batch holds the common
    beginning of a question's answers once, separate from their ends.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, share_prefixes: bool = False) -> None:
        self.tokenizer = tokenizer
        self.share_prefixes = share_prefixes
        # By identity, since an item holds lists, which have no hash; the item is kept, so that its identity stays its own
        self._encoded: dict[int, _Encoded] = {}

    def __call__(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        """Make one batch of items with c candidates in all.

        Returns:
            `input_ids` and `attention_mask` (rows, L), padded on the right; `candidate_ids` (c, m) padded
            with -100; `candidate_row` (c,); `candidate_start` (c,), the position whose logits predict the
            candidate's first token; `candidate_fresh` (c,), its first token that is predicted at a place which no earlier
            candidate of the question has; `candidate_item` (c,); `candidate_kind` (c,), an index into `CHOICE_KINDS`;
            `item_place` (n,), each item's place in its suite; `num_items`; `prompts`, the rendered text of each item;
            `measure`, see `MEASURES`; for scales `candidate_stance` (c,), `effects` (n, axes) and `axes`, their names.
            With `share_prefixes` a row continues its prefix `row_prefix` (rows,) in `prefix_ids` (n, P), which is padded
            on the left as `prefix_mask` (n, P) says.
        """
        rows: list[Tensor] = []
        columns: dict[str, list[int]] = {"row": [], "start": [], "fresh": [], "item": [], "kind": []}
        answers, prompts, prefixes, row_prefix = [], [], [], []
        for index, item in enumerate(items):
            encoded = self._encode(item, f"choice item {index}")
            shared = _shared(encoded) if self.share_prefixes else 0
            prefixes.append(encoded.rows[0][:shared])
            row_prefix += [index] * len(encoded.rows)
            columns["row"] += [len(rows) + place for place in encoded.place]
            columns["start"] += [start - shared for start in encoded.start]
            columns["fresh"] += encoded.fresh
            columns["item"] += [index] * len(encoded.place)
            columns["kind"] += [CHOICE_KINDS.index(kind) for kind in item.kinds]
            rows += [torch.tensor(row[shared:]) for row in encoded.rows]
            answers += encoded.answers
            prompts.append(encoded.prompt)
        pad = int(self.tokenizer.pad_token_id)  # type: ignore[arg-type]
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
            "candidate_ids": pad_sequence(answers, batch_first=True, padding_value=IGNORED),
            **{f"candidate_{name}": torch.tensor(column) for name, column in columns.items()},
            "item_place": torch.tensor([item.place for item in items]),
            "num_items": len(items),
            "prompts": prompts,
            "measure": MEASURES[type(items[0])],
            **(_scales(items) if isinstance(items[0], ScaleItem) else {}),
            **(_prefixes(prefixes, row_prefix, pad) if self.share_prefixes else {}),
        }

    def for_suite(self, items: Sequence[ChoiceItem], *, share_prefixes: bool) -> "ChoiceCollator":
        """Return a collator with the same encoded questions, which shares prefixes only where that saves enough.

        It looks at the whole suite, so that all processes decide alike and run the model equally often.
        """
        made = copy(self)
        made.share_prefixes = share_prefixes and self.saves(items) >= WORTH_SHARING
        return made

    def saves(self, items: Sequence[ChoiceItem]) -> float:
        """Return the share of tokens that `share_prefixes` saves the model, 0..1; 0 where a question has no prefix."""
        every = [self._encode(item, f"choice item {index}") for index, item in enumerate(items)]
        shared = [_shared(encoded) for encoded in every]
        if min(shared, default=0) < 1:
            return 0.0
        whole = sum(len(row) for encoded in every for row in encoded.rows)
        return sum(n * (len(encoded.rows) - 1) for n, encoded in zip(shared, every, strict=True)) / whole

    def _encode(self, item: ChoiceItem, origin: str) -> _Encoded:
        if id(item) not in self._encoded:
            pairs = tokenize_candidates(self.tokenizer, item.messages, item.candidates, origin=origin)
            # The last token of an answer is only predicted
            stems = [tuple(prompt + answer[:-1]) for prompt, answer in pairs]
            kept, place = _place(stems)
            self._encoded[id(item)] = _Encoded(
                item,
                [list(stem) for stem in kept],
                place,
                [len(prompt) - 1 for prompt, _ in pairs],
                [torch.tensor(answer) for _, answer in pairs],
                [_fresh(pairs[:number], *pair) for number, pair in enumerate(pairs)],
                render(self.tokenizer, item.messages, origin=origin, prompt=True),
            )
        return self._encoded[id(item)]


def _fresh(earlier: Sequence[tuple[list[int], list[int]]], prompt: list[int], answer: list[int]) -> int:
    """Return the first token of an answer that is predicted behind other tokens than any token of the earlier answers is."""
    found = 0
    for other_prompt, other in earlier:
        if other_prompt == prompt:
            pairs = enumerate(zip(other, answer, strict=False))
            alike = next((place for place, (one, two) in pairs if one != two), min(len(other), len(answer)))
            found = max(found, min(alike + 1, len(other)))
    return found


def _shared(encoded: _Encoded) -> int:
    """Return how many tokens all rows of a question begin with, before the first that predicts an answer's token."""
    limit = min(encoded.start)
    first = encoded.rows[0]
    for row in encoded.rows[1:]:
        limit = next((i for i in range(limit) if row[i] != first[i]), limit)
    return limit


def _prefixes(prefixes: list[list[int]], row_prefix: list[int], pad: int) -> dict[str, Tensor]:
    ids = [torch.tensor(prefix, dtype=torch.long) for prefix in prefixes]
    ones = [torch.ones_like(each) for each in ids]
    return {
        "prefix_ids": pad_sequence(ids, batch_first=True, padding_value=pad, padding_side="left"),
        "prefix_mask": pad_sequence(ones, batch_first=True, padding_side="left"),
        "row_prefix": torch.tensor(row_prefix),
    }


def _scales(items: Sequence[Any]) -> dict[str, Any]:
    """Return the columns that only scales have."""
    axes = list(items[0].effects)
    return {
        "candidate_stance": torch.tensor([stance for item in items for stance in item.stances]),
        "effects": torch.tensor([[float(item.effects[axis]) for axis in axes] for item in items]),
        "axes": axes,
    }


def _place(stems: list[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Keep the stems that are not the beginning of a longer one, and return the row of every stem."""
    kept: list[tuple[int, ...]] = []
    for stem in sorted(set(stems), key=len, reverse=True):
        if not any(longer[: len(stem)] == stem for longer in kept):
            kept.append(stem)
    return kept, [next(i for i, longer in enumerate(kept) if longer[: len(stem)] == stem) for stem in stems]
