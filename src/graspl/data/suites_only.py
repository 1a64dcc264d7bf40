"""Suites without a task, for adapters whose rows are not at hand."""

from collections.abc import Mapping, Sequence

from graspl.data.rows import Conversation
from graspl.data.suites.base import Items
from graspl.data.task import TaskDataModule
from graspl.errors import GrasplError


class SuitesDataModule(TaskDataModule):
    """Serves only suites (`data.suites`): for an audit, or to validate an adapter that others have made."""

    def train_rows(self) -> Sequence[Conversation]:
        """Refuse to train: this always raises a GrasplError."""
        raise GrasplError("data: SuitesDataModule has only suites; name a task with rows to train on")

    def held_out(self) -> Mapping[str, Items]:
        """Return no suite beside those given.

        Raises:
            GrasplError: none are given.
        """
        if not self.suites and not self.final_suites:
            raise GrasplError("data.suites: none are given; configs/suites/values.yaml has one for any model")
        return {}
