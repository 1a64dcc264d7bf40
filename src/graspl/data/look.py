"""What a fit would train on, in figures and in text, found by the very code that the fit runs."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from graspl.adapters.answers import IGNORED
from graspl.adapters.base_model import resolve_base_model
from graspl.data.preparation import PreparedRow, TooLong, prepare_each
from graspl.data.rows import Conversation
from graspl.data.task import TaskDataModule
from graspl.data.tokens import PLAIN_TEMPLATE, TokenizedConversation
from graspl.data.turns import end_of_answer

NAMED = 3  # Places of rows that are named for each reason
BINS = 8  # Of a histogram, about
ENDS = {
    "turn": "the template writes it behind every answer",
    "next": "the template opens the next turn with it",
    "eos": "the tokenizer's end of text; the template ends an answer with no token of its own",
}
DROPPED: dict[TooLong, str] = {
    "error": "longer than max_length {}: a fit stops; raise max_length or set too_long",
    "drop": "dropped: longer than max_length {}",
    "truncate": "dropped: no answer begins within max_length {}",
}


class Piece(NamedTuple):
    """Tokens side by side that are all trained, or all not."""

    text: str
    trained: bool
    ids: list[int]


def look_at(data: TaskDataModule) -> dict[str, Any]:
    """Return what a fit with this data module would train on, as plain values for JSON.

    Raises:
        GrasplError: the rows or the tokenizer cannot be used, as in a fit.
    """
    given = list(data.train_rows())
    held_out = [row for row in data.held_out().get("task", []) if isinstance(row, Conversation)]
    rows = data.changed_rows()
    every = prepare_each(data.tokenizer, rows, max_length=data.max_length, too_long=data.too_long)
    kept = [each for each in every if each.tokens is not None]
    read = [row.read for row in (*given, *held_out) if row.read is not None]
    return {
        "base_model": data.base_model_name(),
        "formats": dict(Counter(each.form for each in read)),
        "unread_fields": dict(Counter(name for each in read for name in sorted(each.unused))),
        "rows": {
            "read": len(given) + len(held_out),
            "held_out": len(held_out),
            "changed_by_operators": len(rows) - len(given),
            "trained": len(kept),
        },
        "left_out": list(_left_out(every, data)),
        "tokens": _tokens(every, kept),
        "max_length": data.max_length,
        "histogram": histogram([each.length for each in every], data.max_length),
        "end_of_answer": _end(data.tokenizer),
        "chat_template": _template(data.tokenizer, data.base_model_name()),
        "examples": [_example(data.tokenizer, each) for each in _examples(kept)],
    }


def pieces(tokenizer: PreTrainedTokenizerBase, row: TokenizedConversation) -> list[Piece]:
    """Return a row's text in pieces of which the loss sees all tokens or none."""
    found, place, before = [], 0, ""
    for trained, group in groupby(row.labels, lambda label: label != IGNORED):
        end = place + len(list(group))
        upto, ids = _decoded(tokenizer, row.input_ids[:end]), row.input_ids[place:end]
        # Some tokenizers decode a token by what stands before it; a character may also be parted
        text = upto[len(before) :] if upto.startswith(before) else _decoded(tokenizer, ids)
        found.append(Piece(text, trained, ids))
        place, before = end, upto
    return found


def histogram(lengths: Sequence[int], limit: int) -> list[dict[str, int | None]]:
    """Return the rows by length in tokens: `from` to `to`, both included; those longer than `limit` are one bin."""
    longest, shortest = min(max(lengths), limit), min(*lengths, limit)
    width, bins = _round_up((longest - shortest) / BINS), []
    for low in range((shortest - 1) // width * width, longest, width):
        high = min(low + width, limit)
        bins.append({"from": low + 1, "to": high, "rows": sum(low < each <= high for each in lengths)})
    longer = sum(each > limit for each in lengths)
    return [*bins, *([{"from": limit + 1, "to": None, "rows": longer}] if longer else [])]


def _round_up(size: float) -> int:
    """Return the next number of 1, 2 and 5 with zeros."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale >= size:
                return step * scale
        scale *= 10


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _left_out(every: Sequence[PreparedRow], data: TaskDataModule) -> Iterator[dict[str, Any]]:
    """Yield each reason for which rows are left out or cut, with the number of rows and the first of them."""
    reasons: dict[str, Callable[[PreparedRow], bool]] = {
        DROPPED[data.too_long].format(data.max_length): lambda each: each.tokens is None,
        f"cut at max_length {data.max_length}: the end of the answer is not trained": lambda each: (
            each.is_cut
        ),
        "turns behind the last answer are left out": lambda each: bool(
            each.row.read and each.row.read.left_out
        ),
        "answers with weight 0 are not trained": lambda each: any(
            turn.get("weight") == 0 for turn in each.row.messages
        ),
    }
    for why, concerns in reasons.items():
        found = [each.row.origin for each in every if concerns(each)]
        if found:
            yield {"why": why, "rows": len(found), "first": found[:NAMED]}


def _tokens(every: Sequence[PreparedRow], kept: Sequence[PreparedRow]) -> dict[str, Any]:
    lengths = [each.length for each in every]
    rows = [each.tokens for each in kept if each.tokens is not None]
    return {
        "all": sum(map(len, rows)),
        "trained": sum(label != IGNORED for row in rows for label in row.labels),
        "shortest_row": min(lengths),
        "median_row": median(lengths),
        "longest_row": max(lengths),
    }


def _end(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    end = end_of_answer(tokenizer)
    return {"token": _decoded(tokenizer, [end.id]), "id": end.id, "from": ENDS[end.shown]}


def _template(tokenizer: PreTrainedTokenizerBase, base_model: str) -> dict[str, Any]:
    invented = tokenizer.chat_template == PLAIN_TEMPLATE
    file = Path(resolve_base_model(base_model)) / "chat_template.jinja"
    come = str(file) if file.is_file() else f"the tokenizer of {base_model}"
    names = [*tokenizer.chat_template] if isinstance(tokenizer.chat_template, dict) else []
    return {
        "from": "graspl" if invented else come,
        "invented": invented,
        "names": names,
        "text": tokenizer.chat_template,
    }


def _examples(kept: Sequence[PreparedRow]) -> list[PreparedRow]:
    """Return the first row, the one of median length, and the longest; fewer where they are the same."""
    by_length = sorted(kept, key=lambda each: each.length)
    chosen = [kept[0], by_length[len(kept) // 2], by_length[-1]] if kept else []
    return list({id(each): each for each in chosen}.values())


def _example(tokenizer: PreTrainedTokenizerBase, each: PreparedRow) -> dict[str, Any]:
    assert each.tokens is not None, "only what is trained is shown"
    return {
        "origin": each.row.origin,
        "tokens": len(each.tokens),
        "trained": sum(label != IGNORED for label in each.tokens.labels),
        "pieces": [piece._asdict() for piece in pieces(tokenizer, each.tokens)],
    }
