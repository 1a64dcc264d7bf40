"""Evaluation suites, which a task's configuration lists under `data.suites` by class path.

This room may import `graspl.data`'s rows and items. Start reading in `base.py`.
"""

from graspl.data.suites.base import EvaluationSuite, ModelSuite
from graspl.data.suites.free_form import CodePrompts, FreeFormQuestions, SafetyPrompts
from graspl.data.suites.harness import LMEvalTasks
from graspl.data.suites.multiple_choice import MultipleChoice
from graspl.data.suites.refusals import RefusalOpenings
from graspl.data.suites.rows import AnswerPairs, TextRows
from graspl.data.suites.statements import PersonaStatements, Statements

__all__ = [
    "AnswerPairs", "CodePrompts", "EvaluationSuite", "FreeFormQuestions", "LMEvalTasks", "ModelSuite",
    "MultipleChoice", "PersonaStatements", "RefusalOpenings", "SafetyPrompts", "Statements", "TextRows",
]  # fmt: skip
