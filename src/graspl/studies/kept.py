"""Records of finished fits: small files that stand for run folders, so that a study can be continued on another machine."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from graspl import __version__
from graspl.analysis.fits import StudyFit, log_of
from graspl.runs import RunFolder, read_json, write_json_atomic


def keep(fit: StudyFit, path: Path, recorded: Mapping[str, Any], seconds: float) -> None:
    """Write the record of a fit that ended well: what it is of, logged, judged and cost, and where it ran."""
    log = log_of(fit)
    figures = {
        "task": fit.task,
        "method": fit.method,
        "seconds": round(seconds),
        "naive_steps": log.naive_steps,
        "cost": None if log.cost is None else log.cost._asdict(),
        "judged": log.judged,
        "null_space": _responses(RunFolder(fit.folder).null_space),
        "rows": [{name: round(value, 5) for name, value in row.items()} for row in log.rows],
    }
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    record = {
        "graspl": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {cores}, torch {torch.__version__}",
        "seeds": [fit.seed],
        **recorded,
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, record)


def _responses(path: Path) -> dict[str, Any] | None:
    """Return what a null-space start foresaw and measured for each text, without the single sites; None for other fits."""
    if not path.exists():
        return None
    found = read_json(path, "fit", "remove the folder of the fit, and run the study again")
    texts = {name: each for name, each in found.items() if isinstance(each, dict)}
    return {name: _without_sites(each) for name, each in texts.items()}


def _without_sites(response: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_sites(each) if isinstance(each, dict) else each
        for name, each in response.items()
        if name != "sites"
    }


def recorded_in(path: Path) -> Any:
    """Return what a record says that its fit is of: `fingerprint`, and `inputs` by file."""
    return read_json(path, "fit", "remove it, and run the study again")
