"""The capability guard: multiple-choice questions by log-probability of the letter."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, Literal

from graspl.data.choices import ChoiceItem
from graspl.data.rows import Message
from graspl.data.suites.base import TableSuite, item_id
from graspl.data.tables import field, read_table
from graspl.errors import GrasplError


@dataclass
class MultipleChoice(TableSuite):
    """Questions with lettered choices, one of them right: knowledge that a fine-tune must not lose.

    Measured: shares, see ChoiceShares; `good_greedy` is the accuracy.
    """

    source: str
    """Rows with `question`, `choices` (texts) and `answer` (a place from 0, or a letter), as in MMLU."""
    scored: Literal["letter", "text"] = "letter"
    """The answer that is scored: a choice's letter, as in MMLU, or its text with no choices in the prompt, as in ARC."""
    dataset_split: str = "test"
    """Of a `datasets` name."""

    def _items(self) -> Iterator[ChoiceItem]:
        for origin, row in read_table(self.source, split=self.dataset_split):
            choices = row.get("choices") if isinstance(row, Mapping) else None
            if not isinstance(choices, list) or not 2 <= len(choices) <= len(ascii_uppercase):
                raise GrasplError(f"{origin}: choices must be a list of two or more texts")
            right = _place(row.get("answer"), len(choices), origin)
            question, group = field(row, "question", origin), str(row.get("subject", ""))
            item = lettered(question, choices, right, id_=item_id(origin), group=group)
            if self.scored == "text":
                prompt = [Message(role="user", content=question)]
                item = replace(item, messages=prompt, candidates=[str(choice) for choice in choices])
            yield item


def lettered(question: str, choices: list[Any], right: int, *, id_: str, group: str = "") -> ChoiceItem:
    """Return a question with lettered choices, answered by the letter."""
    letters = ascii_uppercase[: len(choices)]
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True)]
    prompt = "\n".join([question, *lines, "Answer with the letter of the right choice."])
    kinds = ["good" if place == right else "other" for place in range(len(choices))]
    return ChoiceItem([Message(role="user", content=prompt)], list(letters), kinds, id=id_, group=group)


def _place(answer: Any, count: int, origin: str) -> int:
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().isalpha():
        answer = ascii_uppercase.find(answer.strip().upper())
    elif isinstance(answer, str) and answer.strip().isdigit():
        answer = int(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < count:
        raise GrasplError(f"{origin}: answer must be the place, from 0, or the letter of a choice")
    return answer
