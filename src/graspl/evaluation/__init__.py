"""What a fine-tune did: choice probabilities, text loss, divergence from the base, coherence.

This room may import `graspl.directions`, `graspl.data` and below. Start reading in `suites.py`.
"""

from graspl.evaluation.logprobs import candidate_logprobs, kl_to_base, model_logits, text_scores
from graspl.evaluation.metrics import ChoiceShares
from graspl.evaluation.suites import SuiteEvaluator, headline

__all__ = [
    "ChoiceShares",
    "SuiteEvaluator",
    "candidate_logprobs",
    "headline",
    "kl_to_base",
    "model_logits",
    "text_scores",
]
