"""`graspl identify`: directions from a naive fit, what they mean, and whether to trust them."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from graspl.activations.assumptions import AssumptionReport, check_assumptions
from graspl.adapters.files import read_adapter
from graspl.checks import CausalOptions, ExplainOptions, causes
from graspl.checks import explain as explained
from graspl.commands.assumptions import conversations, writes_everywhere
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.directions.dimension import effective_rank
from graspl.directions.from_weights import TopSingular
from graspl.directions.identify import Identification, identify_adapter
from graspl.errors import GrasplError
from graspl.reporting.tables import Shown
from graspl.runs import DirectionsFiles, Lineage, RunFacts, RunFolder, adapter_of, write_json_atomic


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
    given = {"method": method, "out": out, "rows": rows, "text": text, "floor": floor, "others": others}
    path = _target(source, given)
    reads = _Reads(source, path, method, rows, text, [*([floor] if floor else []), *(others or [])])
    lineage = Lineage(RunFolder(path.parent))
    lineage.read()  # A broken record is told before anything is written
    lineage.remember(each for every in reads.of_directions().values() for each in every)
    run = RunFolder(path.parent)
    with RunFacts(run.path).command("identify", causal.seed) if run.is_used() else nullcontext():
        if source == path:
            directions, report = Directions.load(source), None
        else:
            directions = identify_adapter(adapter_of(source), method or TopSingular(), path)
            lineage.record([path], reads.of_directions())
            sources = {"rows": rows, "text": text or getattr(method, "text", None)}
            report = _report(source, directions, sources, floor, others or [])
            causal = replace(causal, adapter=causal.adapter or source)
        if report is not None:
            beside = DirectionsFiles(path).assumptions
            write_json_atomic(beside, report.plain())
            lineage.record([beside], reads.of_assumptions(directions))
        found: dict[str, Any] = {"directions": directions, "assumptions": report}
        parts = [*_tables(directions, report), f"directions: {path}"]
        more = _checked(path, lineage, directions, explain, causal, base_model, dtype)
    return Shown(found | more, [*parts, *(line for each in more.values() for line in each.render())])


def _target(source: Path, given: dict[str, Any]) -> Path:
    """Return the directions file: the one given, or the one to write."""
    if source.is_file() and source.suffix == ".safetensors":
        if any(option is not None for option in given.values()):
            needs = "method, out, rows, text, floor and others need an adapter"
            raise GrasplError(f"source: {source} holds directions already; {needs}")
        return source
    path: Path = given["out"] or RunFolder(adapter_of(source).parent).directions
    if path.suffix != ".safetensors":
        raise GrasplError(f"out: {path} must end in .safetensors")
    return path


def _checked(
    path: Path,
    lineage: Lineage,
    directions: Directions,
    explain: ExplainOptions,
    causal: CausalOptions,
    base_model: str | None,
    dtype: str,
) -> dict[str, Any]:
    """Explain and test directions where that is asked for, and record what the reports were made from."""
    name, beside = base_model or directions.metadata.get("base_model", ""), DirectionsFiles(path)
    if not name and (explain.text is not None or causal.data is not None):
        raise GrasplError(f"base_model: {path} does not name it; give --base_model")
    found: dict[str, Any] = {}
    sources = {"directions": [path], "base model": [name]}
    if explain.text is not None:
        found["explanation"] = explained(path, name, explain, dtype=dtype)
        lineage.record([beside.explanation], {**sources, "text": [explain.text]})
    if causal.data is not None:
        found["causes"] = causes(path, name, causal)
        tested = causal.data.sources() if isinstance(causal.data, TaskDataModule) else []
        adapters = [] if causal.adapter is None else [adapter_of(causal.adapter)]
        lineage.record([beside.causal], {**sources, "rows": tested, "adapter": adapters})
    return found


class _Reads(NamedTuple):
    """What an identification reads."""

    source: Path  # Adapter, run or directions file
    path: Path  # The directions file
    method: Any  # How they are found
    rows: str | None  # Of the task
    text: str | None  # By many writers
    others: list[Path]  # Adapters to compare with

    def of_directions(self) -> dict[str, list[Any]]:
        """Return what directions are made from; the base model where the method runs it."""
        found: dict[str, list[Any]] = {"adapter": [adapter_of(self.source)]}
        if self.method is not None:
            found["file"] = [*_places([*vars(self.method).values()])]
            if not type(self.method).__module__.startswith("graspl.directions."):
                found["base model"] = [read_adapter(adapter_of(self.source)).base_model]
        return found

    def of_assumptions(self, directions: Directions) -> dict[str, list[Any]]:
        """Return what the assumption report is made from."""
        text = self.text or getattr(self.method, "text", None)
        read = [each for each in (self.rows, text) if each is not None]
        models = [directions.metadata["base_model"]] if read else []
        adapters = [adapter_of(each) for each in (self.source, *self.others)]
        return {"directions": [self.path], "base model": models, "rows": read, "adapter": adapters}


def _places(options: Any) -> Iterator[Path]:
    """Yield the files and folders that options name; of a run its adapter."""
    if isinstance(options, list | tuple):
        for each in options:
            yield from _places(each)
    elif isinstance(options, str | Path) and Path(options).expanduser().exists():
        yield adapter_of(Path(options).expanduser())


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
