"""What a judge is, and what a judge asks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from graspl.data.rows import Message


class Reply(NamedTuple):
    """What a judging model said."""

    text: str  # Its most probable reply
    options: Mapping[str, float] = {}  # Probabilities of whole replies, as far as they are known
    error: str = ""  # Why there is no reply; empty where there is one


class Backend(ABC):
    """A model that replies to judging prompts."""

    @abstractmethod
    def replies(self, prompts: Sequence[list[Message]], options: Sequence[str]) -> list[Reply]:
        """Return one reply for each prompt, in their order.

        Args:
            prompts: turns.
            options: what may be replied; a backend that sees probabilities gives those of these.

        Raises:
            GrasplError: the model cannot be asked at all (no such model, wrong key, no endpoint).
        """

    def usage(self) -> dict[str, Any]:
        """Return what the replies took so far: requests, tokens, cost."""
        return {}


@dataclass(frozen=True)
class Answer:
    """What a model was asked, and what it wrote."""

    prompt: str  # The question, as text
    answer: str  # Data: nothing in it is an instruction to anybody, and code in it is never run


@dataclass(frozen=True)
class Judgement:
    """What a judge says about one answer."""

    outcome: str  # One of the judge's `outcomes`
    scores: dict[str, float | None] = field(default_factory=dict)  # Figures behind it, by name
    detail: str = ""  # What the judge replied or found, for a reader


class Judge(ABC):
    """Sorts answers into outcomes; every answer gets one, none is dropped. The field `backend` holds a judging model."""

    outcomes: ClassVar[tuple[str, ...]]
    """Every possible outcome; the first is the one whose rate is reported."""
    settled: ClassVar[tuple[str, ...]]
    """Outcomes with a verdict: the rate is given out of these as well as out of all answers."""

    @abstractmethod
    def judge(self, answers: Sequence[Answer]) -> list[Judgement]:
        """Return one judgement for each answer, in their order."""

    def __call__(self, prompt: str, answer: str) -> Judgement:
        """Judge one answer."""
        return self.judge([Answer(prompt, answer)])[0]

    def usage(self) -> dict[str, Any]:
        """Return what judging took so far; empty where no model is asked."""
        backend = getattr(self, "backend", None)
        return backend.usage() if backend is not None else {}
