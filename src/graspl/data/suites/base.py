"""What every evaluation suite is, and which suites are evaluated."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import Any

from graspl.data.choices import ChoiceItem
from graspl.data.questions import Question
from graspl.data.rows import Conversation
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt

# Held-out conversations (their text is scored), questions with answers to choose from, questions to answer, or what another
# program measures.
Items = Sequence[Conversation] | Sequence[ChoiceItem] | Sequence[Question] | Sequence["ModelSuite"]


class EvaluationSuite(ABC):
    """Names data to evaluate on; a task's configuration lists suites under `data.suites`."""

    @abstractmethod
    def read(self) -> Items:
        """Return the items.

        Raises:
            GrasplError: the source cannot be read; names the file, the row and the field.
        """


class ModelSuite(EvaluationSuite):
    """Measured by another program, which is given the whole model; it is the only one of its items."""

    def read(self) -> "list[ModelSuite]":
        """Return itself, once everything that it needs is known to be there."""
        self.prepare()
        return [self]

    @abstractmethod
    def prepare(self) -> None:
        """Find what is needed to measure, before a model is loaded.

        Raises:
            GrasplError: something is missing; says what, and how to get it.
        """

    @abstractmethod
    def measure(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Return the scores by name, with `num_items`; the model, its mode and random states are left as they were.

        Args:
            model: of Transformers or PEFT, on its device.
            tokenizer: the model's own.
        """


@dataclass
class TableSuite(EvaluationSuite):
    """Items made of the rows of a table."""

    source: str
    _: KW_ONLY
    limit: PositiveInt | None = None
    """Use only so many, from the start."""

    def read(self) -> list[Any]:
        """Return the items, of so many rows."""
        found = list(islice(self._items(), self.limit))
        if not found:
            raise GrasplError(f"{self.source}: holds nothing to evaluate; give a file with at least one row")
        return found

    @abstractmethod
    def _items(self) -> Iterator[Any]: ...


def read_suites(
    own: Mapping[str, Items],
    given: Mapping[str, EvaluationSuite],
    *,
    only: Sequence[str] | None,
    unread: Collection[str] = (),
) -> dict[str, Items]:
    """Return the items of the suites to evaluate; one given by name replaces the task's own.

    `only` names those to evaluate; it may name `unread` ones, which are not given here.
    """
    names = [*(name for name in own if name not in given), *given]
    unknown = [name for name in only or () if name not in names and name not in unread]
    if unknown:
        raise GrasplError(f"data.only_suites: {unknown[0]} is none of {', '.join(names)}")
    found: dict[str, Items] = {}
    for name in names if only is None else [name for name in names if name in only]:
        try:
            found[name] = given[name].read() if name in given else own[name]
        except GrasplError as error:
            hint = "correct it, or leave the suite out with data.only_suites"
            raise GrasplError(f"data.suites.{name}: {error} ({hint})") from error
        if not found[name]:
            raise GrasplError(f"data: the {name} suite has nothing to evaluate; give more rows")
    return found


def item_id(origin: str) -> str:
    """Return an item's name: the file's name and the line of its row, in whatever folder the file lies.

    Runs are paired by it, so it must not depend on where somebody keeps the data.
    """
    return re.split(r"[\\/]", origin)[-1]
