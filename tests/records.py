"""Run folders written by hand."""

import json

from graspl.analysis import read_run
from graspl.runs import Lineage, RunFolder, write_json_atomic


def recorded(folder, *more):
    """Record the results in a folder, and more of its files, as they lie there, made from nothing; return the folder."""
    run = RunFolder(folder)
    Lineage(run).record([*run.results(), *more], {})
    return folder


def make_run(
    folder, *, model="LoRALitModule", adapter="adapter", curve_rows=(), answer="try rest .", **metrics
):
    """Write an evaluated run with a log of (step, adherence, spill-over), and return it read."""
    figures = {
        "adherence": 0.9,
        "spillover": 0.5,
        "coherence": 0.9,
        "kl": 0.1,
        "rho_mean": 0.5,
        "rho_max": 0.7,
    }
    content = {
        "model": model,
        "adapter": adapter,
        "directions": None,
        "metrics": figures | metrics,
        "sites": {"layers.0.q_proj": {"rho": 0.5, "norm": 1.0, "singular_values": [1.0, 0.5]}},
    }
    run = RunFolder(folder)
    write_json_atomic(run.evaluation, content)
    run.generations.write_text(json.dumps({"suite": "task", "prompt": "<b>how</b>", "answer": answer}) + "\n")
    lines = ["step,val/adherence,val/spillover", *(",".join(map(str, row)) for row in curve_rows)]
    run.metrics.write_text("\n".join(lines) + "\n")
    return read_run(recorded(folder))
