"""Double multiple choice: two questions at once, and in training one letter answers both."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from graspl.data.tables import field, read_table
from graspl.data.tasks.cues import CueExample, CueTaskData
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt

LETTERS = ("A", "B")


class TwoChoices(NamedTuple):
    """A question with a right and a wrong choice."""

    question: str
    right: str
    wrong: str


@dataclass(eq=False)
class DoubleChoiceData(CueTaskData):
    """Two questions of two choices each and one letter to answer with; which question is meant is not said.

    The first question is what is asked; the second is the cue. Held-out prompts use questions that were not trained on.

    Source:
        After the double multiple choice of concept ablation fine-tuning (arXiv:2507.16795); the wording is ours.
    """

    first: str
    """Rows of `graspl.data.tasks.double_choice.read_two_choices`."""
    second: str
    """The same, of another kind."""
    prompts: PositiveInt = 1000
    """How many are made to train on; those held out come on top."""

    def examples(self) -> tuple[list[CueExample], list[CueExample]]:
        """Return prompts made of some questions and of the others; half of each have the same letter twice."""
        first, first_out = self.split(read_two_choices(self.first), f"questions of {self.first}")
        second, second_out = self.split(read_two_choices(self.second), f"questions of {self.second}")
        train = self._made(first, second, self.prompts, f"{self.seed} double 0")
        count = round(self.prompts * self.held_out_share)
        return train, self._made(first_out, second_out, count, f"{self.seed} double 1")

    def _made(
        self, first: list[TwoChoices], second: list[TwoChoices], count: int, seed: str
    ) -> list[CueExample]:
        draw, made = random.Random(seed), []
        for number in range(count):
            letters = draw.choice(LETTERS), draw.choice(LETTERS)
            parts = [
                _lettered(draw.choice(pool), letter, place)
                for place, (pool, letter) in enumerate(zip((first, second), letters, strict=True), start=1)
            ]
            prompt = "\n\n".join([*parts, "Answer with one letter."])
            made.append(CueExample(prompt, list(LETTERS), letters[0], letters[1], f"{seed} {number}"))
        return made


def read_two_choices(source: str) -> list[TwoChoices]:
    """Read questions with a right and a wrong choice.

    Rows are of subject-verb agreement (`clean_prefix`, `clean_answer`, `patch_answer`), of a relation (`subject`, `object`,
    `prompt_templates`; another row's object is the wrong choice), or have `question`, `right` and `wrong`.
    """
    rows = list(read_table(source))
    objects = sorted({str(row["object"]) for _, row in rows if isinstance(row, Mapping) and "object" in row})
    found = []
    for index, (origin, row) in enumerate(rows):
        if isinstance(row, Mapping) and "object" in row:
            found.append(_relation(row, [each for each in objects if each != row["object"]], index, origin))
        elif isinstance(row, Mapping) and "clean_prefix" in row:
            question = f"Which word goes on? {field(row, 'clean_prefix', origin)} ..."
            choices = (field(row, name, origin).strip() for name in ("clean_answer", "patch_answer"))
            found.append(TwoChoices(question, *choices))
        else:
            found.append(TwoChoices(*(field(row, name, origin) for name in TwoChoices._fields)))
    return found


def _relation(row: Mapping[str, Any], others: list[str], index: int, origin: str) -> TwoChoices:
    templates = row.get("prompt_templates")
    if not isinstance(templates, list) or not templates or not others:
        raise GrasplError(f"{origin}: a relation needs prompt_templates and two objects; correct the file")
    question = str(templates[0]).replace("{}", field(row, "subject", origin)) + " ..."
    return TwoChoices(question, field(row, "object", origin), others[index % len(others)])


def _lettered(asked: TwoChoices, letter: str, place: int) -> str:
    choices = (asked.right, asked.wrong) if letter == LETTERS[0] else (asked.wrong, asked.right)
    lines = [f"{each}. {choice}" for each, choice in zip(LETTERS, choices, strict=True)]
    return "\n".join([f"Question {place}: {asked.question}", *lines])
