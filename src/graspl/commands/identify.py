"""`graspl identify`: directions from the weights of a naive fine-tune."""

from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from rich.table import Table
from torch import Tensor

from graspl.commands.terminal import console
from graspl.directions.basis import Directions
from graspl.directions.from_weights import Identification, TopSingular
from graspl.directions.identify import identify_adapter
from graspl.errors import GrasplError
from graspl.runs import RunFolder


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl identify`."""
    parser.add_function_arguments(identify, as_positional=True)


def identify(adapter: Path, method: Identification = TopSingular(), out: Path | None = None) -> Directions:  # noqa: B008
    """Find the directions that a LoRA adapter leans on, from its weights alone; no base model is needed.

    Args:
        adapter: folder of an adapter in PEFT format (ours or any other), or a run folder.
        method: how they are found.
        out: file to write; beside the adapter's folder, `directions.safetensors`, where none is given.

    Raises:
        GrasplError: the adapter cannot be used.
    """
    run = RunFolder(adapter)
    folder = run.adapter if run.adapter.is_dir() else adapter
    target = out or RunFolder(folder.parent).directions
    if target.suffix != ".safetensors":
        raise GrasplError(f"out: {target} must end in .safetensors")
    directions = identify_adapter(folder, method, target)
    terminal = console()
    terminal.print(_table(directions))
    terminal.print(f"directions: {target}", soft_wrap=True, highlight=False, markup=False)
    return directions


def _table(directions: Directions) -> Table:
    """Return one row a site: shape, rank, and how far the first direction stands out."""
    table = Table("site", "out x in", "rank", "sigma 1", "share", "gap", "effective rank")
    table.caption = (
        "share: sigma 1 / ||dW||_F; gap: sigma 1 / sigma 2; effective rank: exp of the spectrum's entropy. "
        "A high share with a large gap means one direction dominates the update."
    )
    for name, site in directions.sites.items():
        share, gap, effective = _dominance(site.S)
        shape = f"{site.U.shape[0]} x {site.V.shape[0]}"
        figures = (f"{site.S[0]:.3g}", f"{share:.3f}", f"{gap:.2f}", f"{effective:.2f}")
        table.add_row(name, shape, str(len(site.S)), *figures)
    return table


def _dominance(S: Tensor) -> tuple[float, float, float]:
    """Return share, gap and effective rank of a spectrum, (m,) descending.

    Source:
        Effective rank: Roy and Vetterli, EUSIPCO 2007, Eq. 3.
    """
    spectrum = S.double()
    gap = float(spectrum[0] / spectrum[1]) if len(S) > 1 and spectrum[1] > 0 else float("inf")
    p = spectrum / spectrum.sum()
    entropy = -(p * p.clamp_min(1e-300).log()).sum()
    return float(spectrum[0] / torch.linalg.vector_norm(spectrum)), gap, float(entropy.exp())
