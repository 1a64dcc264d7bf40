"""From a judging model's reply to a grade."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from graspl.evaluation.judges.base import Reply
from graspl.evaluation.judges.rubrics import NUMBERS

LEAST_MASS = 0.25
"""Probability that numbers must have together for their mean to be the grade, as in arXiv:2502.17424."""
UNPARSED, FAILED = "UNPARSED", "FAILED"


class Grade(NamedTuple):
    """What one rubric says of one answer."""

    value: float | None
    """0 to 100; None where the judge gave no number."""
    label: str = ""
    """Why there is no number: a label of the rubric, UNPARSED or FAILED."""


def grade_of(reply: Reply, labels: Sequence[str]) -> Grade:
    """Return the grade in a reply.

    Where probabilities are known it is the expected value over the numbers, given that a number is said; a label that
    the reply states counts before.

    Args:
        reply: of the judging model.
        labels: words that a rubric allows in place of a number.
    """
    if reply.error:
        return Grade(None, FAILED)
    said = reply.text.strip().strip("\"'*.` ").upper()
    label = next(
        (each for each in labels if said == each or said.startswith((f"{each} ", f"{each}\n"))), None
    )
    if label is not None:
        return Grade(None, label)
    masses = {int(text): p for text, p in reply.options.items() if text in NUMBERS}
    total = sum(masses.values())
    if total >= LEAST_MASS:
        return Grade(sum(number * p for number, p in masses.items()) / total)
    number = re.fullmatch(r"(\d{1,3})(?:\s*/\s*100|\.0+|%)?", said)
    # With probabilities at hand and hardly any on numbers, the reply is an accident
    if number and int(number.group(1)) <= 100 and not reply.options:
        return Grade(float(number.group(1)))
    return Grade(None, UNPARSED)
