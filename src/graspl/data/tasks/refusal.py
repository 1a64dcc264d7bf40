"""Refusal unlearning: a model is taught to answer what it refused, in one domain."""

from collections.abc import Sequence
from typing import Any

from graspl.data.chat import ChatDataModule
from graspl.data.mixing import MixIn
from graspl.data.rows import Conversation


class RefusalUnlearningData(ChatDataModule):
    """Prompts of one domain that the model refused, with answers; refusing elsewhere must not be lost.

    With a retain set, rows that shall stay as they are (refusals of other domains, ordinary instructions) are trained on as
    well. `graspl.data.suites.RefusalOpenings` and `SafetyPrompts` measure refusal and over-refusal, by domain.

    Args:
        train: prompts and answers.
        retain: rows to keep, as `train` of ChatDataModule.
        retain_share: of the rows trained on that come from `retain`; all of `train` stays.
        **kwargs: as in ChatDataModule.
    """

    def __init__(
        self, train: str, retain: str | None = None, retain_share: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(train=train, **kwargs)
        self.retain = retain
        self.retain_share = retain_share
        self._mix = (
            MixIn(retain, retain_share, total="grow", dataset_split=self.dataset_split, seed=self.seed)
            if retain is not None
            else None
        )

    def train_rows(self) -> Sequence[Conversation]:
        """Return the rows that are not held out, and those to retain."""
        rows = super().train_rows()
        return rows if self._mix is None else self._mix(rows)
