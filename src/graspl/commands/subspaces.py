"""`graspl subspaces`: what the updates of several adapters have in common, and what lies between two."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table

from graspl.adapters.files import read_adapter
from graspl.adapters.sites import Site
from graspl.adapters.subspaces import shared_subspace
from graspl.errors import GrasplError
from graspl.ranges import PositiveInt
from graspl.runs import adapter_of, write_json_atomic


@dataclass(frozen=True)
class Subspaces:
    """What adapters share, pair by pair."""

    pairs: list[dict[str, Any]]
    """Means over the common sites, and each site's figures."""
    out: Path
    """The file they were written to."""

    def render(self) -> Iterator[Table | str]:
        """Yield a table with a row for each pair, and the file."""
        table = Table(
            "adapters", "sites", "cosine of updates", "shared output space", "shared input space", "by chance"
        )
        for pair in self.pairs:
            row = (f"{pair[name]:.3f}" for name in ("cosine", "left", "right", "chance"))
            table.add_row("\n".join(pair["adapters"]), str(len(pair["sites"])), *row)
        yield table
        yield f"subspaces: {self.out}"


def subspaces(adapters: list[Path], *, k: PositiveInt = 4, out: Path = Path("subspaces.json")) -> Subspaces:
    """Compare adapters of several tasks, pair by pair and site by site, from their weights alone.

    A high cosine or small angles between fine-tunes on different data show what they share beyond their tasks. Compare with
    the figure by chance, which is that of random subspaces.

    Args:
        adapters: PEFT folders or run folders, two or more, of one base model.
        k: leading singular directions to compare.
        out: file to write, with every site's figures.

    Raises:
        GrasplError: there are fewer than two adapters, or two have no site in common.
    """
    if len(adapters) < 2:
        raise GrasplError("adapters: give two or more")
    read = {
        str(path): {site.name: site for site in read_adapter(adapter_of(path)).sites} for path in adapters
    }
    if len(read) < len(adapters):
        raise GrasplError("adapters: one is named twice; name each once")
    pairs = [_pair(ours, theirs, read, k) for ours, theirs in combinations(read, 2)]
    write_json_atomic(out, {"k": k, "pairs": pairs})
    return Subspaces(pairs, out)


def _pair(ours: str, theirs: str, read: dict[str, dict[str, Site]], k: int) -> dict[str, Any]:
    """Return two adapters' figures: means over their common sites of the cosine and of the squared cosines of the angles."""
    common = [name for name in read[ours] if name in read[theirs]]
    if not common:
        raise GrasplError(f"{theirs}: has no site in common with {ours}; give adapters of one base model")
    odd = next((name for name in common if read[ours][name].shape != read[theirs][name].shape), None)
    if odd is not None:
        raise GrasplError(
            f"{theirs}: {odd} has another shape than in {ours}; give adapters of one base model"
        )
    sites = {name: shared_subspace(read[ours][name], read[theirs][name], k=k) for name in common}
    squares = lambda cosines: sum(cosine**2 for cosine in cosines) / len(cosines)  # noqa: E731
    count = len(sites)
    return {
        "adapters": [ours, theirs],
        "cosine": sum(site.cosine for site in sites.values()) / count,
        "left": sum(squares(site.left) for site in sites.values()) / count,
        "right": sum(squares(site.right) for site in sites.values()) / count,
        "chance": sum(site.chance for site in sites.values()) / count,
        "sites": {name: vars(site) for name, site in sites.items()},
    }
