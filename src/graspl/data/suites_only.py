"""Suites without a task, for adapters whose rows are not at hand."""

from collections.abc import Mapping, Sequence

from graspl.data.rows import Conversation
from graspl.data.task import Suite, TaskDataModule
from graspl.errors import GrasplError


class SuitesDataModule(TaskDataModule):
    """Serves suites alone (`data.suites`): for an audit, or to validate an adapter that others have made."""

    def train_rows(self) -> Sequence[Conversation]:
        """Refuse: there is nothing to train on.

        Raises:
            GrasplError: always.
        """
        raise GrasplError("data: SuitesDataModule has suites alone; name a task with rows to train on")

    def held_out(self) -> Mapping[str, Suite]:
        """Return no suite beside those given.

        Raises:
            GrasplError: none are given.
        """
        if not self._given_suites:
            raise GrasplError("data.suites: none are given; configs/suites/audit.yaml has one for any model")
        return {}
