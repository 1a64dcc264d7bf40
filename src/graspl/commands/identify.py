"""`graspl identify`: directions from a naive fit, what they mean, and whether to trust them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from graspl.activations.assumptions import AssumptionReport, check_assumptions
from graspl.adapters.files import read_adapter
from graspl.checks import CausalOptions, ExplainOptions, causes
from graspl.checks import explain as explained
from graspl.commands.assumptions import conversations, writes_everywhere
from graspl.directions.basis import Directions
from graspl.directions.dimension import effective_rank
from graspl.directions.from_weights import TopSingular
from graspl.directions.identify import Identification, identify_adapter
from graspl.errors import GrasplError
from graspl.reporting.tables import Shown
from graspl.runs import DirectionsFiles, Lineage, RunFolder, adapter_of, write_json_atomic


def identify(
    source: Path,
    *,
    method: TopSingular | Identification | None = None,
    out: Path | None = None,
    rows: str | None = None,
    text: str | None = None,
    floor: Path | None = None,
    others: list[Path] | None = None,
    explain: ExplainOptions = ExplainOptions(),  # noqa: B008 - frozen
    causal: CausalOptions = CausalOptions(),  # noqa: B008 - frozen
    base_model: str | None = None,
    dtype: str = "auto",
) -> Shown:
    """Find the directions that a LoRA adapter leans on, and check how far to trust them.

    The default method reads the weights alone and needs no base model. Natural directions, and every option that takes
    rows, text or data, run the base model. Give a directions file instead of an adapter to explain or test it.

    Args:
        source: adapter folder in PEFT format (ours or any other), run folder, or directions file.
        method: how to find the directions; TopSingular by default.
        out: file to write; `directions.safetensors` beside the adapter's folder by default.
        rows: what the adapter was trained on, for the assumption report.
        text: unlabelled conversations by many writers, for the assumption report; the method's own by default.
        floor: adapter or run that was trained as long with data.shuffle_answers: the noise floor of the spectra.
        others: adapters or runs of other seeds, to see whether they agree.
        explain: what the directions mean, into `<directions>.explanation.json`. Needs --explain.text.
        causal: whether moving the base model along the directions spills over, into `causal.json`. Needs --causal.data.
        base_model: hub name or folder that explains and tests the directions; the one that they name by default.
        dtype: of the base model's weights when it explains: auto, float32, bfloat16 or float16.
    """
    report: AssumptionReport | None = None
    if source.is_file() and source.suffix == ".safetensors":
        if any(option is not None for option in (method, out, rows, text, floor, others)):
            needs = "method, out, rows, text, floor and others need an adapter"
            raise GrasplError(f"source: {source} holds directions already; {needs}")
        path, directions = source, Directions.load(source)
    else:
        path = out or RunFolder(adapter_of(source).parent).directions
        if path.suffix != ".safetensors":
            raise GrasplError(f"out: {path} must end in .safetensors")
        directions = identify_adapter(adapter_of(source), method or TopSingular(), path)
        given = {"rows": rows, "text": text or getattr(method, "text", None)}
        report = _report(source, directions, given, floor, others or [])
        causal = replace(causal, adapter=causal.adapter or source)
    if report is not None:
        write_json_atomic(DirectionsFiles(path).assumptions, report.plain())
    found: dict[str, Any] = {"directions": directions, "assumptions": report}
    parts = [*_tables(directions, report), f"directions: {path}"]
    name = base_model or directions.metadata.get("base_model", "")
    if not name and (explain.text is not None or causal.data is not None):
        raise GrasplError(f"base_model: {path} does not name it; give --base_model")
    if explain.text is not None:
        found["explanation"] = explained(path, name, explain, dtype=dtype)
        parts += found["explanation"].render()
    if causal.data is not None:
        found["causes"] = causes(path, name, causal)
        parts += found["causes"].render()
    _record(
        path,
        found,
        {"rows": rows, "text": text, "explained text": explain.text, "tested data": causal.data},
        source,
    )
    return Shown(found, parts)


def _record(path: Path, found: dict[str, Any], data: dict[str, Any], source: Path) -> None:
    """Record what the directions and the reports beside them were made from."""
    beside, lineage = DirectionsFiles(path), Lineage(RunFolder(path.parent))
    read = {label: [str(each)] for label, each in data.items() if each is not None}
    if source != path:
        lineage.record([path], {"adapter": [adapter_of(source)]})
    reports = {"assumptions": beside.assumptions, "explanation": beside.explanation, "causes": beside.causal}
    made = [place for name, place in reports.items() if found.get(name) is not None]
    lineage.record(made, {"directions": [path], **read})


def _report(
    source: Path, directions: Directions, given: dict[str, str | None], floor: Path | None, others: list[Path]
) -> AssumptionReport | None:
    """Return the assumption report; None for an adapter with a layer that does not write to the residual stream."""
    adapter = read_adapter(adapter_of(source))
    if not writes_everywhere(adapter):
        return None
    return check_assumptions(
        adapter,
        directions,
        **conversations(adapter.base_model, **given),
        floor=read_adapter(adapter_of(floor)) if floor else None,
        others=[read_adapter(adapter_of(other)) for other in others],
    )


def _tables(directions: Directions, report: AssumptionReport | None) -> Iterator[Table | str]:
    yield _sites_table(directions) if directions.sites else _layers_table(directions)
    if report is not None:
        yield _report_table(report)
        yield f"assumptions: {report.verdict}: {report.reason}"


def _report_table(report: AssumptionReport) -> Table:
    """Return one row a layer: the theorem's conditions as numbers."""
    figures = ("writers", "seeds", "rest rank", "overlap", "natural", "explained")
    table = Table("layer", "share", "gap (at)", "above floor", *figures, title="assumptions")
    table.caption = (
        "share: sigma 1 / ||dW||_F of what the layer writes; writers, seeds: squared cosines of their first directions; "
        "rest rank: effective rank without sigma 1; overlap: of what is written with the directions; natural, explained: see "
        "docs/method.md."
    )
    for name, (share, gap, gap_at, above_floor, *others) in report.layers.items():
        above = "-" if above_floor is None else str(above_floor)
        cells = ("-" if value is None else f"{value:.2f}" for value in others)
        table.add_row(name, f"{share:.2f}", f"{gap:.2f} ({gap_at})", above, *cells)
    return table


def _layers_table(directions: Directions) -> Table:
    """Return one row a layer: how many directions, and the strengths they were found with."""
    table = Table("layer", "directions", "strengths")
    for name, layer in directions.layers.items():
        k = layer.D.shape[1]
        table.add_row(name, str(k), " ".join(f"{value:.3g}" for value in layer.S[:k]))
    return table


def _sites_table(directions: Directions) -> Table:
    """Return one row a site: shape, rank, and how far the first direction stands out."""
    table = Table("site", "out x in", "rank", "sigma 1", "share", "gap", "effective rank")
    table.caption = (
        "share: sigma 1 / ||dW||_F; gap: sigma 1 / sigma 2; effective rank: exp of the spectrum's entropy. "
        "A high share with a large gap means that one direction dominates the update."
    )
    for name, site in directions.sites.items():
        share = float(site.S[0] / site.S.norm())
        gap = float(site.S[0] / site.S[1]) if len(site.S) > 1 else float("inf")
        shape = f"{site.U.shape[0]} x {site.V.shape[0]}"
        figures = (f"{site.S[0]:.3g}", f"{share:.3f}", f"{gap:.2f}", f"{effective_rank(site.S):.2f}")
        table.add_row(name, shape, str(len(site.S)), *figures)
    return table
