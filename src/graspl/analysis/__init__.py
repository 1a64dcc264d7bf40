"""Run folders turned into figures, for one seed or many.

This room may import `graspl.directions`, `graspl.runs` and below. Start reading in `tradeoff.py`; `comparison.py` puts single
runs side by side, `study.py` many seeds.
"""

from graspl.analysis.changes import changes
from graspl.analysis.comparison import Comparison, compare
from graspl.analysis.contrast import contrast
from graspl.analysis.intervals import by_cluster, paired, removed, samples_to_tell, summarise, wilson
from graspl.analysis.judged import rates, rates_by_group
from graspl.analysis.removal import Removal, removal, removal_sentence, study_removal
from graspl.analysis.runs import Run, StaleResult, read_run, trusted
from graspl.analysis.scores import headline
from graspl.analysis.tradeoff import curve, figures_at
from graspl.analysis.verdicts import key_points, verdict

__all__ = [
    "Comparison", "Removal", "Run", "StaleResult", "by_cluster", "changes", "compare", "contrast", "curve", "figures_at",
    "headline", "key_points", "paired", "rates", "rates_by_group", "read_run", "removal", "removal_sentence", "removed",
    "samples_to_tell", "study_removal", "summarise", "trusted", "verdict", "wilson",
]  # fmt: skip
