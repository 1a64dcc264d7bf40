"""`graspl subspaces`: what the updates of several adapters have in common, and the adapters between two."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from rich.table import Table

from graspl.adapters.files import AdapterFolder, read_adapter, write_adapter
from graspl.adapters.subspaces import interpolated
from graspl.analysis import headline
from graspl.auditing.weights import Shared, shared
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt
from graspl.runs import RunFolder, adapter_of, atomic_path, write_json_atomic

SCORES = tuple(headline({}))


@dataclass(frozen=True)
class Subspaces:
    """What adapters share, and what lies between two."""

    pairs: dict[tuple[str, str], Shared]
    """Means over the common sites, and each site's figures."""
    out: Path
    """Folder of `subspaces.json` and of the adapters between."""
    between: dict[float, RunFolder]
    """Run folder of each adapter between two, by its place on the line."""
    scores: dict[float, dict[str, float | None]]
    """Their evaluations, by place; empty where none was asked for."""

    def render(self) -> Iterator[Table | str]:
        """Yield a row for each pair, each adapter between two, and the files."""
        table = Table(
            "adapters", "sites", "cosine of updates", "shared output space", "shared input space", "by chance"
        )
        for names, pair in self.pairs.items():
            figures = (f"{value:.3f}" for value in (pair.cosine, pair.left, pair.right, pair.chance))
            table.add_row("\n".join(names), str(len(pair.sites)), *figures)
        yield table
        if self.scores:
            table = Table("at", *SCORES)
            for place, scores in self.scores.items():
                table.add_row(f"{place:g}", *("-" if x is None else f"{x:.4f}" for x in scores.values()))
            yield table
        for run in self.between.values():
            yield f"adapter: {run.adapter}"
        yield f"subspaces: {self.out / 'subspaces.json'}"


def subspaces(
    adapters: list[Path],
    *,
    k: PositiveInt = 4,
    at: Sequence[float] = (),
    evaluate: Path | None = None,
    out: Path = Path("subspaces"),
) -> Subspaces:
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

    Raises:
        GrasplError: the adapters do not fit one another, or an evaluation failed.
    """
    if len(adapters) < 2:
        raise GrasplError("adapters: give two or more")
    if at and len(adapters) > 2:
        raise GrasplError(f"at: lies between two adapters, {len(adapters)} are given")
    folders = {str(path): read_adapter(adapter_of(path)) for path in adapters}
    if len(folders) < len(adapters):
        raise GrasplError("adapters: one is named twice; name each once")
    pairs = {
        (ours, theirs): shared(folders[ours], folders[theirs], k=k)
        for ours, theirs in combinations(folders, 2)
    }
    between = {place: _between([*folders.values()], place, out) for place in at}
    scores = {}
    if evaluate is not None:
        base_model = next(iter(folders.values())).base_model
        scores = {place: _evaluated(evaluate, run, base_model) for place, run in between.items()}
    content = [{"adapters": names, **pair.plain()} for names, pair in pairs.items()]
    write_json_atomic(out / "subspaces.json", {"k": k, "pairs": content})
    return Subspaces(pairs, out, between, scores)


def _between(adapters: list[AdapterFolder], place: float, out: Path) -> RunFolder:
    """Write the adapter at a place on the line between two."""
    first, second = adapters
    if first.base_model != second.base_model:
        raise GrasplError(
            f"adapters: {second.path} was trained on {second.base_model}, {first.path} on {first.base_model}"
        )
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
