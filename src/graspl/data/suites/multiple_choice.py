"""The capability guard: multiple-choice questions by log-probability of the letter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, Literal

from graspl.data.choices import ChoiceItem
from graspl.data.rows import Message
from graspl.data.suites.base import EvaluationSuite, item_id, not_empty
from graspl.data.tables import field, read_table
from graspl.errors import GrasplError


@dataclass
class MultipleChoice(EvaluationSuite):
    """Questions with lettered choices, one of them right: what a fine-tune must not lose.

    Measured: shares, see ChoiceShares; `good_greedy` is the accuracy.
    """

    source: str
    """Rows with `question`, `choices` (texts) and `answer` (a place from 0, or a letter), as MMLU has them."""
    scored: Literal["letter", "text"] = "letter"
    """What is answered: the letter of a choice, as MMLU does, or its text with no choices in the prompt, as ARC does."""
    dataset_split: str = "test"
    """Of a `datasets` name."""
    limit: int | None = None
    """Use only so many, from the start."""

    def read(self) -> list[ChoiceItem]:
        """Return one item a question."""
        items = []
        for origin, row in read_table(self.source, split=self.dataset_split):
            choices = row.get("choices") if isinstance(row, Mapping) else None
            if not isinstance(choices, list) or not 2 <= len(choices) <= len(ascii_uppercase):
                raise GrasplError(f"{origin}: choices must be a list of two texts or more")
            right = _place(row.get("answer"), len(choices), origin)
            group = row.get("subject", "")
            item = lettered(
                field(row, "question", origin), choices, right, id_=item_id(origin), group=str(group)
            )
            if self.scored == "text":
                prompt = [Message(role="user", content=field(row, "question", origin))]
                item = replace(item, messages=prompt, candidates=[str(choice) for choice in choices])
            items.append(item)
            if self.limit is not None and len(items) >= self.limit:
                break
        return not_empty(items, self.source)


def lettered(question: str, choices: list[Any], right: int, *, id_: str, group: str = "") -> ChoiceItem:
    """Return a question with lettered choices; the letter is the answer.

    Args:
        question: its text.
        choices: their texts.
        right: place of the right one.
        id_: names the item.
        group: reported apart.
    """
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
        raise GrasplError(
            f"{origin}: answer must be the place (from 0) or the letter of one of the {count} choices"
        )
    return answer
