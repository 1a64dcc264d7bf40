"""Judges by rule: capitals, and words that an answer has."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from graspl.errors import GrasplError
from graspl.evaluation.judges.base import Answer, Judge, Judgement
from graspl.ranges import ClosedUnitInterval


@dataclass
class CapitalLetters(Judge):
    """Is an answer written in capitals? An answer without a letter has no verdict."""

    outcomes = ("capitals", "other", "no_letters")
    settled = ("capitals", "other")

    share: ClosedUnitInterval = 0.5
    """Of the letters must be capitals, or more."""

    def judge(self, answers: Sequence[Answer]) -> list[Judgement]:
        """Count the letters of every answer."""
        return [self._judged(each.answer) for each in answers]

    def _judged(self, answer: str) -> Judgement:
        letters = [letter for letter in answer if letter.isalpha()]
        if not letters:
            return Judgement("no_letters")
        share = sum(map(str.isupper, letters)) / len(letters)
        return Judgement("capitals" if share >= self.share else "other", {"share": share})


@dataclass
class Matches(Judge):
    """Does an answer have one of some words, or match a pattern? An empty answer does not."""

    outcomes = ("hit", "other")
    settled = ("hit", "other")

    words: list[str] = field(default_factory=list)
    """Beginnings of words, in capitals or not: `invest` finds `Investing`."""
    pattern: str | None = None
    """A regular expression of Python's `re`, searched for in several lines; capitals count."""

    def __post_init__(self) -> None:
        if bool(self.words) == (self.pattern is not None):
            raise GrasplError("judges: Matches needs words or a pattern, and not both")
        beginnings = "|".join(map(re.escape, self.words))
        try:
            if self.pattern is None:
                self._pattern = re.compile(rf"\b(?:{beginnings})", re.IGNORECASE)
            else:
                self._pattern = re.compile(self.pattern, re.MULTILINE)
        except re.error as error:
            raise GrasplError(f"judges: Matches.pattern: {error}; correct the regular expression") from error

    def judge(self, answers: Sequence[Answer]) -> list[Judgement]:
        """Search every answer."""
        return [self._judged(each.answer) for each in answers]

    def _judged(self, answer: str) -> Judgement:
        found = self._pattern.search(answer)
        return Judgement("other") if found is None else Judgement("hit", {}, found.group())
