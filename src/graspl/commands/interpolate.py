"""`graspl interpolate`: the adapters on the straight line between two, and what they score."""

import subprocess
import sys
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.adapters.files import read_adapter, write_adapter
from graspl.adapters.subspaces import interpolated
from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.runs import RunFolder, adapter_of, atomic_path

FIGURES = ("adherence", "spillover", "coherence", "kl")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl interpolate`."""
    parser.add_argument("first", type=Path, help="PEFT folder or run folder: at 0")
    parser.add_argument("second", type=Path, help="the same: at 1")
    parser.add_argument("--at", type=list[float], default=[0.25, 0.5, 0.75], help="places on the line")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder; each place is a run folder in it, at_<place>"
    )
    parser.add_argument(
        "--evaluate", type=Path, help="configuration of graspl validate, to evaluate each place with"
    )


def interpolate(
    first: Path,
    second: Path,
    out: Path,
    at: list[float] = [0.25, 0.5, 0.75],  # noqa: B006 - never changed
    evaluate: Path | None = None,
) -> dict[float, dict[str, float | None]]:
    """Write adapters whose updates are (1 - t) dW + t dW', and evaluate them where a configuration is given.

    What lies between is exact in the updates (not in the factors), at the sum of the ranks.

    Args:
        first: PEFT folder or run folder, at 0.
        second: the same, at 1.
        out: folder; each place is a run folder in it, `at_<place>`, with an adapter that PEFT loads.
        at: places on the line; beyond 0..1 is allowed.
        evaluate: configuration of `graspl validate`.

    Raises:
        GrasplError: the adapters do not fit, or an evaluation failed.
    """
    ours, theirs = (read_adapter(adapter_of(path)) for path in (first, second))
    if ours.base_model != theirs.base_model:
        raise GrasplError(
            f"second: {second} was trained on {theirs.base_model}, the first on {ours.base_model}"
        )
    scores: dict[float, dict[str, float | None]] = {}
    terminal = console()
    for place in at:
        run = RunFolder(out / f"at_{place:g}")
        sites = interpolated(ours.sites, theirs.sites, at=place)
        with atomic_path(run.adapter) as folder:
            write_adapter(folder, ours.base_model, sites)
        terminal.print(f"adapter: {run.adapter}", soft_wrap=True, highlight=False, markup=False)
        if evaluate is not None:
            _validate(evaluate, run, ours.base_model)
            metrics = run.read_evaluation()["metrics"]
            scores[place] = {name: metrics[name] for name in FIGURES}
    if scores:
        table = Table("at", *FIGURES)
        for place, figures in scores.items():
            table.add_row(f"{place:g}", *("-" if x is None else f"{x:.4f}" for x in figures.values()))
        terminal.print(table)
    return scores


def _validate(config: Path, run: RunFolder, base_model: str) -> None:
    """Run `graspl validate` in a process of its own, which leaves no state behind."""
    command = [sys.executable, "-m", "graspl", "validate", "--config", str(config)]
    command += [f"--model.base_model={base_model}", f"--trainer.default_root_dir={run.path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("graspl: error: ")
        raise GrasplError(f"evaluate: {config}: {reason}")
