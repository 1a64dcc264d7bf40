"""`graspl identify`: directions from the weights of a naive fine-tune."""

from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.table import Table

from graspl.activations.assumptions import AssumptionReport, check_assumptions
from graspl.activations.streams import tokenized
from graspl.adapters.base_model import load_tokenizer
from graspl.adapters.files import read_adapter
from graspl.adapters.residual import writers_by_layer
from graspl.commands.terminal import console
from graspl.data.tokens import with_chat_template
from graspl.directions.basis import Directions
from graspl.directions.dimension import effective_rank
from graspl.directions.from_weights import Identification, TopSingular
from graspl.directions.identify import identify_adapter
from graspl.errors import GrasplError
from graspl.runs import DirectionsFiles, RunFolder, adapter_of, write_json_atomic


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl identify`."""
    parser.add_function_arguments(identify, as_positional=True)


def identify(
    adapter: Path,
    method: TopSingular | Identification | None = None,
    out: Path | None = None,
    rows: str | None = None,
    text: str | None = None,
    floor: Path | None = None,
    others: list[Path] | None = None,
) -> Directions:
    """Find the directions that a LoRA adapter leans on, and check whether they may be believed.

    From weights alone (the default method) no base model is needed. Natural directions, and the checks that take rows and
    text, run the base model.

    Args:
        adapter: folder of an adapter in PEFT format (ours or any other), or a run folder.
        method: how they are found; TopSingular where none is named.
        out: file to write; beside the adapter's folder, `directions.safetensors`, where none is given.
        rows: what the adapter was trained on, for the assumption report.
        text: unlabelled conversations by many writers, for the report; the method's own where it has one.
        floor: adapter or run of as many steps with data.shuffle_answers: the noise floor of the spectra.
        others: adapters or runs of other seeds, to see whether they agree.

    Raises:
        GrasplError: the adapter cannot be used.
    """
    folder = adapter_of(adapter)
    method = method or TopSingular()
    target = out or RunFolder(folder.parent).directions
    if target.suffix != ".safetensors":
        raise GrasplError(f"out: {target} must end in .safetensors")
    directions = identify_adapter(folder, method, target)
    terminal = console()
    terminal.print(_table(directions) if directions.sites else _layers_table(directions))
    report = _report(folder, directions, rows, text or getattr(method, "text", None), floor, others or [])
    if report is not None:
        write_json_atomic(DirectionsFiles(target).assumptions, report.plain())
        terminal.print(_report_table(report))
        terminal.print(
            f"assumptions: {report.verdict}: {report.reason}", soft_wrap=True, highlight=False, markup=False
        )
    terminal.print(f"directions: {target}", soft_wrap=True, highlight=False, markup=False)
    return directions


def _report(
    folder: Path,
    directions: Directions,
    rows: str | None,
    text: str | None,
    floor: Path | None,
    others: list[Path],
) -> AssumptionReport | None:
    """Return the report; None for an adapter without sites that write to the residual stream, which has no layers."""
    adapter = read_adapter(folder)
    written = writers_by_layer(adapter.sites)
    if not written or not all(written.values()):
        return None
    tokenizer = with_chat_template(load_tokenizer(adapter.base_model)) if rows or text else None
    read = partial(tokenized, tokenizer=tokenizer, limit=256, max_length=1024)  # type: ignore[arg-type]
    return check_assumptions(
        adapter,
        directions,
        rows=read(rows) if rows else [],
        text=read(text) if text else [],
        floor=read_adapter(adapter_of(floor)) if floor else None,
        others=[read_adapter(adapter_of(other)) for other in others],
    )


def _report_table(report: AssumptionReport) -> Table:
    """Return one row a layer: the theorem's conditions as numbers."""
    titles = (
        "layer",
        "share",
        "gap (at)",
        "above floor",
        "writers",
        "seeds",
        "rest rank",
        "overlap",
        "natural",
        "explained",
    )
    table = Table(*titles, title="assumptions")
    table.caption = (
        "share: sigma 1 / ||dW||_F of what the layer writes; writers, seeds: squared cosines of their first directions; "
        "rest rank: effective rank without sigma 1; overlap: of what is written with the directions; natural, explained: see "
        "docs/method.md."
    )
    for name, check in report.layers.items():
        values = [
            check.writers_agree,
            check.seeds_agree,
            check.rest_rank,
            check.overlap,
            check.naturalness,
            check.explained,
        ]
        above = "-" if check.above_floor is None else str(check.above_floor)
        cells = ["-" if value is None else f"{value:.2f}" for value in values]
        table.add_row(name, f"{check.share:.2f}", f"{check.gap:.2f} ({check.gap_at})", above, *cells)
    return table


def _layers_table(directions: Directions) -> Table:
    """Return one row a layer: how many directions, and the strengths they were found with."""
    table = Table("layer", "directions", "strengths")
    for name, layer in directions.layers.items():
        table.add_row(
            name, str(layer.D.shape[1]), " ".join(f"{value:.3g}" for value in layer.S[: layer.D.shape[1]])
        )
    return table


def _table(directions: Directions) -> Table:
    """Return one row a site: shape, rank, and how far the first direction stands out."""
    table = Table("site", "out x in", "rank", "sigma 1", "share", "gap", "effective rank")
    table.caption = (
        "share: sigma 1 / ||dW||_F; gap: sigma 1 / sigma 2; effective rank: exp of the spectrum's entropy. "
        "A high share with a large gap means one direction dominates the update."
    )
    for name, site in directions.sites.items():
        share, gap = (
            float(site.S[0] / site.S.norm()),
            float(site.S[0] / site.S[1]) if len(site.S) > 1 else float("inf"),
        )
        shape = f"{site.U.shape[0]} x {site.V.shape[0]}"
        figures = (f"{site.S[0]:.3g}", f"{share:.3f}", f"{gap:.2f}", f"{effective_rank(site.S):.2f}")
        table.add_row(name, shape, str(len(site.S)), *figures)
    return table
