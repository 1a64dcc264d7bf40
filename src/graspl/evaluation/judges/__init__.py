"""Judges sort answers: a model with a rubric, phrases of refusal, static analysis of code.

This room may import `graspl.data`, `graspl.adapters` and below. Start reading in `base.py`.
"""

from graspl.evaluation.judges.alignment import AlignmentJudge, RubricJudge
from graspl.evaluation.judges.base import Answer, Backend, Judge, Judgement, Reply
from graspl.evaluation.judges.code import InsecureCode
from graspl.evaluation.judges.local import LocalBackend
from graspl.evaluation.judges.openai import OpenAIBackend
from graspl.evaluation.judges.refusal import RefusalPhrases
from graspl.evaluation.judges.wording import CapitalLetters, Matches

__all__ = [
    "AlignmentJudge", "Answer", "Backend", "CapitalLetters", "InsecureCode", "Judge", "Judgement", "LocalBackend",
    "Matches", "OpenAIBackend", "RefusalPhrases", "Reply", "RubricJudge",
]  # fmt: skip
