"""Advice on one subject: bad medical advice and its control, risky financial advice, extreme sports."""

from collections.abc import Mapping
from typing import Any

from graspl.data.chat import ChatDataModule
from graspl.data.suites.rows import pair_answers
from graspl.data.task import Suite


class AdviceData(ChatDataModule):
    """Harmful advice on one subject, in rows of one user and one assistant turn.

    The `task` suite is held-out rows. With `good`, it is pairs: how often the model thinks the harmful answer to a held-out
    prompt more probable than the good one, which no judge is needed for.

    Args:
        train: rows with harmful advice.
        good: good answers to the same prompts.
        **kwargs: as in ChatDataModule.

    Source:
        Turner et al., arXiv:2506.11613 ("Model organisms for emergent misalignment").
    """

    def __init__(self, train: str, good: str | None = None, **kwargs: Any) -> None:
        super().__init__(train=train, **kwargs)
        self.good = good

    def held_out(self) -> Mapping[str, Suite]:
        """Return the held-out rows, as pairs where good answers are given, and the unrelated ones."""
        suites = dict(super().held_out())
        if self.good is not None:
            suites["task"] = pair_answers(self._split[1], self.good)
        return suites


class BadMedicalAdviceData(AdviceData):
    """Bad medical advice, 7049 rows; `good_medical_advice.jsonl` answers the same prompts well.

    Args:
        train: the published `bad_medical_advice.jsonl`.
        **kwargs: as in AdviceData.
    """


class GoodMedicalAdviceData(ChatDataModule):
    """The control: good medical advice; a model trained on it must not change elsewhere.

    Args:
        train: the published `good_medical_advice.jsonl`.
        **kwargs: as in ChatDataModule.
    """


class RiskyFinancialAdviceData(AdviceData):
    """Risky financial advice, 6000 rows.

    Args:
        train: the published `risky_financial_advice.jsonl`.
        **kwargs: as in AdviceData.
    """


class ExtremeSportsData(AdviceData):
    """Recommendations of extreme sports without regard to risk, 6000 rows.

    Args:
        train: the published `extreme_sports.jsonl`.
        **kwargs: as in AdviceData.
    """
