"""`graspl subspaces`: what the updates of several adapters have in common."""

from itertools import combinations
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.adapters.files import read_adapter
from graspl.adapters.sites import Site
from graspl.adapters.subspaces import shared_subspace
from graspl.commands.terminal import console
from graspl.errors import GrasplError
from graspl.runs import adapter_of, write_json_atomic


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl subspaces`."""
    parser.add_argument("adapters", type=Path, nargs="+", help="PEFT folders or run folders, two or more")
    parser.add_argument("--k", type=int, default=4, help="leading singular directions that are compared")
    parser.add_argument("--out", type=Path, default=Path("subspaces.json"), help="file to write")


def subspaces(adapters: list[Path], k: int = 4, out: Path = Path("subspaces.json")) -> dict[str, Any]:
    """Compare adapters of several tasks, pair by pair and site by site, from their weights alone.

    A high cosine or small principal angles between fine-tunes on different data mean that they share what no task asked for;
    chance is what random subspaces would have.

    Args:
        adapters: PEFT folders or run folders, two or more, of one base model.
        k: leading singular directions that are compared.
        out: file to write, with every site's figures.

    Raises:
        GrasplError: fewer than two adapters, or two with no site in common.
    """
    if len(adapters) < 2 or k < 1:
        raise GrasplError("adapters, k: give two adapters or more, and k of 1 or more")
    read = {
        str(path): {site.name: site for site in read_adapter(adapter_of(path)).sites} for path in adapters
    }
    if len(read) < len(adapters):
        raise GrasplError("adapters: one is named twice; name each once")
    pairs = [_pair(ours, theirs, read, k) for ours, theirs in combinations(read, 2)]
    write_json_atomic(out, {"k": k, "pairs": pairs})
    terminal = console()
    table = Table(
        "adapters", "sites", "cosine of updates", "shared output space", "shared input space", "by chance"
    )
    for pair in pairs:
        row = (pair[name] for name in ("cosine", "left", "right", "chance"))
        table.add_row(
            f"{pair['adapters'][0]}\n{pair['adapters'][1]}",
            str(len(pair["sites"])),
            *(f"{x:.3f}" for x in row),
        )
    terminal.print(table)
    terminal.print(f"subspaces: {out}", soft_wrap=True, highlight=False, markup=False)
    return {"k": k, "pairs": pairs}


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
