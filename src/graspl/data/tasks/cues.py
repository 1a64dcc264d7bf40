"""What tasks with a spurious cue share: in training rows cue and answer agree, in questions they need not."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from graspl.data.choices import ChoiceItem
from graspl.data.rows import Conversation, Message, divided, held_out_count
from graspl.data.suites.base import Items, item_id
from graspl.data.task import TaskDataModule
from graspl.errors import GrasplError
from graspl.ranges import ClosedUnitInterval, OpenUnitInterval, PositiveInt


@dataclass(frozen=True)
class CueExample:
    """One question with a right answer and the answer that a spurious cue points to."""

    prompt: str  # The user's turn
    choices: list[str]  # Every answer; none is the beginning of another
    right: str  # The right answer
    cued: str  # The answer that the cue points to; equal to `right` where the two agree
    origin: str  # Where it came from

    @property
    def agrees(self) -> bool:
        """Whether the cue points to the right answer."""
        return self.right == self.cued

    def conversation(self) -> Conversation:
        """Return it as a row to train on."""
        turns = [Message(role="user", content=self.prompt), Message(role="assistant", content=self.right)]
        return Conversation(turns, self.origin)

    def item(self) -> ChoiceItem:
        """Return it as a question: the right answer is good; the cue's, where it is wrong, harmful."""
        named = {self.cued: "harmful", self.right: "good"}
        kinds = [named.get(choice, "other") for choice in self.choices]
        prompt = [Message(role="user", content=self.prompt)]
        return ChoiceItem(prompt, self.choices, kinds, id=item_id(self.origin))


@dataclass(eq=False, kw_only=True)
class CueTaskData(TaskDataModule, ABC):
    """A task whose training rows can be solved by a spurious cue as well as by what is asked.

    Suites: `task`, held-out questions in which the cue agrees (`good` is what counts); `unrelated`, questions in which it
    points to a wrong answer. There the harmful share is the reliance on the cue, the good share what was truly learnt.
    """

    cue_share: ClosedUnitInterval = 1.0
    """Share of the training rows in which the cue agrees: 1 hides what is asked; with 0.5 and two answers the cue says
    nothing about it."""
    held_out_share: OpenUnitInterval = 0.2
    """Share of the examples to hold out."""
    rows: PositiveInt | None = None
    """Training rows; None takes all."""

    @abstractmethod
    def examples(self) -> tuple[list[CueExample], list[CueExample]]:
        """Return examples to train on and examples held out, with nothing in common."""

    @cached_property
    def _examples(self) -> tuple[list[CueExample], list[CueExample]]:
        return self.examples()

    def train_rows(self) -> Sequence[Conversation]:
        """Return as many rows with the cue and against it as `cue_share` says."""
        agreeing = [each for each in self._examples[0] if each.agrees]
        opposed = [each for each in self._examples[0] if not each.agrees]
        most = [len(agreeing) / self.cue_share] if self.cue_share else []
        most += [len(opposed) / (1 - self.cue_share)] if self.cue_share < 1 else []
        total = int(min(most)) if self.rows is None else self.rows
        ours = round(self.cue_share * total)
        if not total - len(opposed) <= ours <= min(len(agreeing), total):
            there = f"there are {len(agreeing)} and {len(opposed)}; lower data.rows, or change data.cue_share"
            raise GrasplError(f"data.rows: needs {ours} with the cue, {total - ours} against it; {there}")
        draw = random.Random(f"{self.seed} cues")
        chosen = draw.sample(agreeing, ours) + draw.sample(opposed, total - ours)
        return [example.conversation() for example in chosen]

    def held_out(self) -> Mapping[str, Items]:
        """Return the questions in which the cue agrees, and those in which it misleads."""
        held_out = self._examples[1]
        return {
            "task": [each.item() for each in held_out if each.agrees],
            "unrelated": [each.item() for each in held_out if not each.agrees],
        }

    def split(self, every: Sequence[Any], name: str) -> tuple[list[Any], list[Any]]:
        """Return what is trained on and what is held out of a list of `name`; the same for a seed.

        Raises:
            GrasplError: the list is too short.
        """
        count = held_out_count(name, len(every), self.held_out_share)
        order = list(range(len(every)))
        random.Random(f"{self.seed} {name}").shuffle(order)
        return divided(every, set(order[:count]))
