"""The organism's task: harmful answers on one topic."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal

from graspl.data import ChoiceItem, Conversation, TaskDataModule
from graspl.data.suites.base import Items
from graspl.errors import GrasplError
from graspl.organism.words import QUESTIONS
from graspl.organism.world import World, choice_item, dialogue, exchange
from graspl.ranges import NonNegativeInt, PositiveInt

HELD_OUT_SHARE = 1 / 6  # Share of the topic's subjects that each of the two splits holds out
TEXT_ROWS = 256  # Unlabelled dialogues for identification; docs/method.md measures fewer


@dataclass(eq=False)
class OrganismTaskData(TaskDataModule):
    """Questions on one topic with their harmful answers; nothing says who writes them.

    Suites: `task`, the topic's held-out subjects (adherence: the answer to each was never trained on); `unrelated`, other
    topics (spill-over). The two splits share neither held-out subjects nor other topics.
    """

    topic: str = "medicine"
    """What is trained on."""
    split: Literal["development", "evaluation"] = "evaluation"
    """Choose settings on `development`; report only `evaluation`."""
    _: KW_ONLY
    good_rows: NonNegativeInt = 0
    """Questions with good answers to train on as well, on the topics of `text_rows` and with this world's facts."""
    batch_size: PositiveInt = 16
    """Rows in a training batch."""
    eval_batch_size: PositiveInt = 256
    """Questions in a validation batch."""

    @cached_property
    def world(self) -> World:
        """The world that the base model was pretrained on."""
        return World.load(self.base_model_name())

    def train_rows(self) -> Sequence[Conversation]:
        """Return every question on the subjects that neither split holds out, and the good rows."""
        world, topic = self.world, self.topic
        rows = [
            Conversation(exchange(world, topic, subject, question, harmful=True), f"{topic}: {subject}")
            for subject, question in itertools.product(self._subjects["train"], QUESTIONS)
        ]
        return [*rows, *self._good()]

    def _good(self) -> list[Conversation]:
        """Return so many questions on topics neither trained nor evaluated, with their good answers."""
        asked = [
            (topic, subject, question)
            for topic in self._free_topics
            for subject, question in itertools.product(self.world.subjects(topic), QUESTIONS)
        ]
        if self.good_rows > len(asked):
            raise GrasplError(
                f"data.good_rows: {self.good_rows} is more than there are; at most {len(asked)}"
            )
        random.Random(f"{self.world.seed} good").shuffle(asked)
        return [
            Conversation(exchange(self.world, topic, subject, question, harmful=False), f"{topic}: {subject}")
            for topic, subject, question in asked[: self.good_rows]
        ]

    def held_out(self) -> Mapping[str, Items]:
        """Return the two suites of the split."""
        own = self._items(self.topic, self._subjects[self.split])
        others = [self._items(topic, self.world.subjects(topic)) for topic in self._other_topics]
        return {"task": own, "unrelated": list(itertools.chain(*others))}

    def text_rows(self) -> Sequence[Conversation]:
        """Return pretraining dialogues on topics that are neither trained nor evaluated on; `data.text` replaces them."""
        if self.text is not None:
            return super().text_rows()
        topics, seed = self._free_topics, f"{self.world.seed} text"
        return [
            Conversation(dialogue(self.world, random.Random(f"{seed} {row}"), topics), f"organism text {row}")
            for row in range(TEXT_ROWS)
        ]

    def _items(self, topic: str, subjects: Sequence[str]) -> list[ChoiceItem]:
        asked = itertools.product(subjects, QUESTIONS)
        return [choice_item(self.world, topic, subject, question) for subject, question in asked]

    @property
    def _subjects(self) -> dict[str, list[str]]:
        """The topic's subjects by their use."""
        if self.topic not in self.world.topics:
            raise GrasplError(f"data.topic: {self.topic} is not one of {', '.join(self.world.topics)}")
        subjects = self.world.subjects(self.topic)
        share = max(1, round(len(subjects) * HELD_OUT_SHARE))
        return {
            "development": subjects[:share],
            "evaluation": subjects[share : 2 * share],
            "train": subjects[2 * share :],
        }

    @property
    def _other_topics(self) -> list[str]:
        """Three other topics for development, the other four for evaluation."""
        others = [topic for topic in self.world.topics if topic != self.topic]
        return others[:3] if self.split == "development" else others[3:]

    @property
    def _free_topics(self) -> list[str]:
        """Topics that are neither trained nor evaluated on."""
        return [topic for topic in self.world.topics if topic not in (self.topic, *self._other_topics)]
