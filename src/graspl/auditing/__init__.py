"""A check of a finished LoRA adapter before it ships: its weights, what it leans on, and what it does off its task.

This room may import `graspl.methods`, `graspl.reporting` and below. Start reading in `checks.py`.
"""

from graspl.auditing.behaviour import SuiteFacts, behaviour
from graspl.auditing.checks import AuditReport, Check, Limits, checks
from graspl.auditing.weights import Along, Shared, SiteFacts, along, beside, shared, site_facts

__all__ = [
    "Along", "AuditReport", "Check", "Limits", "Shared", "SiteFacts", "SuiteFacts", "along", "behaviour",
    "beside", "checks", "shared", "site_facts",
]  # fmt: skip
