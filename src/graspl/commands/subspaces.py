"""`graspl subspaces`: what the updates of several adapters have in common, and the adapters between two."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from rich.table import Table

from graspl.adapters.files import AdapterFolder, read_adapter, write_adapter
from graspl.adapters.subspaces import interpolated
from graspl.analysis import headline
from graspl.auditing import Shared, shared
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt
from graspl.reporting.tables import Shown
from graspl.runs import Lineage, RunFolder, adapter_of, atomic_path, write_json_atomic

SCORES = tuple(headline({}))


def subspaces(
    adapters: list[Path],
    *,
    k: PositiveInt = 4,
    at: Sequence[float] = (),
    evaluate: Path | None = None,
    out: Path = Path("subspaces"),
) -> Shown:
    """Compare the updates of several adapters, pair by pair and site by site, from their weights alone.

    A high cosine or small angles between fine-tunes on different data show what they share beyond their tasks. Compare with
    the figure by chance, which is that of random subspaces. With --at, also write the adapters on the line between two: their
    updates are (1 - t) dW + t dW', exact at the sum of the ranks.

    Args:
        adapters: adapter folders in PEFT format or run folders, two or more, of one base model.
        k: how many leading singular directions to compare.
        at: places t on the line from the first of two adapters (0) to the second (1); beyond 0..1 is allowed.
        evaluate: configuration of `graspl validate`, to evaluate each place with.
        out: folder for `subspaces.json` and a run folder for each place, `at_<t>`.
    """
    if len(adapters) < 2:
        raise GrasplError("adapters: give two or more")
    if at and len(adapters) > 2:
        raise GrasplError(f"at: lies between two adapters, {len(adapters)} are given")
    folders = {str(path): read_adapter(adapter_of(path)) for path in adapters}
    if len(folders) < len(adapters):
        raise GrasplError("adapters: one is named twice; name each once")
    pairs = {(a, b): shared(folders[a], folders[b], k=k) for a, b in combinations(folders, 2)}
    between = {place: _between([*folders.values()], place, out) for place in at}
    scores = {}
    if evaluate is not None:
        base_model = next(iter(folders.values())).base_model
        scores = {place: _evaluated(evaluate, run, base_model) for place, run in between.items()}
    content = [{"adapters": names, **pair.plain()} for names, pair in pairs.items()]
    write_json_atomic(out / "subspaces.json", {"k": k, "pairs": content})
    sources = {"adapter": [adapter_of(path) for path in adapters]}
    Lineage(RunFolder(out)).record([out / "subspaces.json"], sources)
    tables = [_pairs_table(pairs), *([_scores_table(scores)] if scores else [])]
    files = [*(f"adapter: {run.adapter}" for run in between.values()), f"subspaces: {out / 'subspaces.json'}"]
    return Shown((pairs, scores), [*tables, *files])


def _pairs_table(pairs: dict[tuple[str, str], Shared]) -> Table:
    table = Table(
        "adapters", "sites", "cosine of updates", "shared output space", "shared input space", "by chance"
    )
    for names, pair in pairs.items():
        figures = (f"{value:.3f}" for value in (pair.cosine, pair.left, pair.right, pair.chance))
        table.add_row("\n".join(names), str(len(pair.sites)), *figures)
    return table


def _scores_table(evaluated: dict[float, dict[str, float | None]]) -> Table:
    table = Table("at", *SCORES)
    for place, scores in evaluated.items():
        table.add_row(f"{place:g}", *("-" if x is None else f"{x:.4f}" for x in scores.values()))
    return table


def _between(adapters: list[AdapterFolder], place: float, out: Path) -> RunFolder:
    """Write the adapter at a place on the line between two."""
    first, second = adapters
    if first.base_model != second.base_model:
        bases = f"{second.path} was trained on {second.base_model}, {first.path} on {first.base_model}"
        raise GrasplError(f"adapters: {bases}")
    run = RunFolder(out / f"at_{place:g}")
    sites = interpolated(first.sites, second.sites, at=place)
    with atomic_path(run.adapter) as folder:
        write_adapter(folder, first.base_model, sites)
    return run


def _evaluated(config: Path, run: RunFolder, base_model: str) -> dict[str, float | None]:
    """Run `graspl validate` in a process of its own, which leaves no state behind, and return the scores."""
    command = [sys.executable, "-m", "graspl", "validate", "--config", str(config)]
    command += [f"--model.base_model={base_model}", f"--trainer.default_root_dir={run.path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("graspl: error: ")
        raise GrasplError(f"evaluate: {config}: {reason}")
    metrics = run.read_evaluation()["metrics"]
    return {name: metrics[name] for name in SCORES}
