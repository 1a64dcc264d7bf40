"""Runs side by side: figures, tables and one page.

This room may import `graspl.runs` and below. Start reading in `comparison.py`.
"""

from graspl.reporting.comparison import Comparison, Run, compare, read_run
from graspl.reporting.page import render_page
from graspl.reporting.sentences import headline, verdict
from graspl.reporting.tables import runs_table
from graspl.reporting.tradeoff import spillover_at

__all__ = [
    "Comparison",
    "Run",
    "compare",
    "headline",
    "read_run",
    "render_page",
    "runs_table",
    "spillover_at",
    "verdict",
]
