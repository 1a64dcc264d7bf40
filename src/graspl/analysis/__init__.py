"""Run folders turned into figures, for one seed or many.

This room may import `graspl.directions`, `graspl.runs` and below. Start reading in `tradeoff.py`; `comparison.py` puts single
runs side by side, `study.py` many seeds.
"""

from graspl.analysis.comparison import Comparison, compare
from graspl.analysis.contrast import contrast
from graspl.analysis.intervals import by_cluster, paired, removed, samples_to_tell, summarise, wilson
from graspl.analysis.judged import rates, rates_by_group
from graspl.analysis.runs import Run, StaleResult, read_run, trusted
from graspl.analysis.scores import headline
from graspl.analysis.tradeoff import curve, figures_at
from graspl.analysis.verdicts import key_points, verdict

__all__ = [
    "Comparison", "Run", "StaleResult", "by_cluster", "compare", "contrast", "curve", "figures_at", "headline", "key_points",
    "paired", "rates", "rates_by_group", "read_run", "removed", "samples_to_tell", "summarise", "trusted", "verdict",
    "wilson",
]  # fmt: skip
