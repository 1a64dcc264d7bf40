"""What the analysis found, shown: terminal tables, Markdown and CSV, figures, and one HTML page.

This room may import `graspl.analysis`, `graspl.runs` and below. Start reading in `page.py`.
"""

from graspl.reporting.page import render_page
from graspl.reporting.tables import runs_table

__all__ = ["render_page", "runs_table"]
