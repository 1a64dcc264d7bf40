"""What every evaluation suite is: where its items come from."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from graspl.data.choices import ChoiceItem
from graspl.data.questions import Question
from graspl.data.rows import Conversation
from graspl.errors import GrasplError

Items = Sequence[Conversation] | Sequence[ChoiceItem] | Sequence[Question]
"""Held-out conversations (their text is scored), questions with answers to choose from, or questions to be answered."""


class EvaluationSuite(ABC):
    """Names data to evaluate on; a task's configuration lists suites under `data.suites`."""

    @abstractmethod
    def read(self) -> Items:
        """Return the items.

        Raises:
            GrasplError: the source cannot be read; names the file, the row and the field.
        """


def item_id(origin: str) -> str:
    """Return an item's name from where its row came from: the file's name and the line, wherever the file lies.

    Runs are paired by it, so it must not hang on the folder that somebody keeps the data in.
    """
    return re.split(r"[\\/]", origin)[-1]


def not_empty(items: list, source: str) -> list:
    """Return the items.

    Raises:
        GrasplError: there are none.
    """
    if not items:
        raise GrasplError(f"{source}: holds nothing to evaluate; give a file with at least one row")
    return items
