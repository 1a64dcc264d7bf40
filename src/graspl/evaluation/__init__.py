"""What a fine-tune did: probabilities of answers, divergence from the base model, written answers and their judgements.

This room may import `graspl.directions`, `graspl.data` and below. Start reading in `suites.py`; `judges/` says who judges.
"""

from graspl.evaluation.generate import Sampling, TransformersGenerator, VLLMGenerator
from graspl.evaluation.judging import judge_rows
from graspl.evaluation.logprobs import candidate_logprobs, kl_to_base, text_scores
from graspl.evaluation.metrics import AxisScores, ChoiceShares, ItemValues, PairMargins
from graspl.evaluation.suites import SuiteEvaluator

__all__ = [
    "AxisScores", "ChoiceShares", "ItemValues", "PairMargins", "Sampling", "SuiteEvaluator",
    "TransformersGenerator", "VLLMGenerator", "candidate_logprobs", "judge_rows", "kl_to_base", "text_scores",
]  # fmt: skip
