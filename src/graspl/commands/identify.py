"""`graspl identify`: directions from a naive fit, what they mean, and whether to trust them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from graspl.activations.assumptions import AssumptionReport, check_assumptions
from graspl.activations.streams import tokenized
from graspl.adapters.base_model import load_tokenizer
from graspl.adapters.files import read_adapter
from graspl.adapters.residual import writers_by_layer
from graspl.checks import CausalOptions, Causes, ExplainOptions, Explanation, causes
from graspl.checks import explain as explained
from graspl.data.tokens import with_chat_template
from graspl.directions.basis import Directions
from graspl.directions.dimension import effective_rank
from graspl.directions.from_weights import TopSingular
from graspl.directions.identify import Identification, identify_adapter
from graspl.errors import GrasplError
from graspl.runs import DirectionsFiles, RunFolder, adapter_of, write_json_atomic


@dataclass(frozen=True)
class Identified:
    """Directions, and what the checks found."""

    directions: Directions
    """In the file."""
    path: Path
    """The file."""
    report: AssumptionReport | None = None
    """Whether an adapter's directions may be trusted; None without an adapter that writes to the residual stream."""
    explanation: Explanation | None = None
    """What they mean, where it was asked for."""
    causes: Causes | None = None
    """What moving along them does, where it was asked for."""

    def render(self) -> Iterator[Table | str]:
        """Yield the directions, the assumption report, and what else was asked for."""
        yield _sites_table(self.directions) if self.directions.sites else _layers_table(self.directions)
        if self.report is not None:
            yield _report_table(self.report)
            yield f"assumptions: {self.report.verdict}: {self.report.reason}"
        yield f"directions: {self.path}"
        for found in (self.explanation, self.causes):
            if found is not None:
                yield from found.render()


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
) -> Identified:
    """Find the directions that a LoRA adapter leans on, and check how far to trust them.

    The default method reads the weights alone and needs no base model. Natural directions, and every option that takes
    rows, text or data, run the base model. Give a directions file instead of an adapter to explain or test directions that
    you have.

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

    Raises:
        GrasplError: the adapter or the directions cannot be used.
    """
    if source.is_file() and source.suffix == ".safetensors":
        if any(option is not None for option in (method, out, rows, text, floor, others)):
            raise GrasplError(
                f"source: {source} holds directions already; method, out, rows, text, floor and others need an adapter"
            )
        found = Identified(Directions.load(source), source)
    else:
        found = _identified(source, method or TopSingular(), out, rows, text, floor, others or [])
        causal = replace(causal, adapter=causal.adapter or source)
    return _checked(found, explain, causal, base_model, dtype)


def _identified(
    source: Path,
    method: Identification,
    out: Path | None,
    rows: str | None,
    text: str | None,
    floor: Path | None,
    others: list[Path],
) -> Identified:
    """Write an adapter's directions and the assumption report."""
    folder = adapter_of(source)
    target = out or RunFolder(folder.parent).directions
    if target.suffix != ".safetensors":
        raise GrasplError(f"out: {target} must end in .safetensors")
    directions = identify_adapter(folder, method, target)
    report = _report(folder, directions, rows, text or getattr(method, "text", None), floor, others)
    if report is not None:
        write_json_atomic(DirectionsFiles(target).assumptions, report.plain())
    return Identified(directions, target, report)


def _checked(
    found: Identified, options: ExplainOptions, causal: CausalOptions, base_model: str | None, dtype: str
) -> Identified:
    """Explain and test directions, as far as it was asked for."""
    if options.text is None and causal.data is None:
        return found
    name = base_model or found.directions.metadata.get("base_model")
    if not name:
        raise GrasplError(f"base_model: {found.path} does not name it; give --base_model")
    return replace(
        found,
        explanation=explained(found.path, name, options, dtype=dtype) if options.text is not None else None,
        causes=causes(found.path, name, causal) if causal.data is not None else None,
    )


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
    fields = {
        "writers": "writers_agree",
        "seeds": "seeds_agree",
        "rest rank": "rest_rank",
        "overlap": "overlap",
        "natural": "naturalness",
        "explained": "explained",
    }
    table = Table("layer", "share", "gap (at)", "above floor", *fields, title="assumptions")
    table.caption = (
        "share: sigma 1 / ||dW||_F of what the layer writes; writers, seeds: squared cosines of their first directions; "
        "rest rank: effective rank without sigma 1; overlap: of what is written with the directions; natural, explained: see "
        "docs/method.md."
    )
    for name, check in report.layers.items():
        above = "-" if check.above_floor is None else str(check.above_floor)
        values: list[Any] = [getattr(check, field) for field in fields.values()]
        cells = ["-" if value is None else f"{value:.2f}" for value in values]
        table.add_row(name, f"{check.share:.2f}", f"{check.gap:.2f} ({check.gap_at})", above, *cells)
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
