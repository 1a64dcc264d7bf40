"""`graspl audit`: a check of any LoRA adapter before it ships."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from graspl.activations.assumptions import check_assumptions
from graspl.adapters.files import AdapterFolder, read_adapter
from graspl.auditing import AuditReport, Limits, along, behaviour, beside, checks, site_facts
from graspl.auditing.page import render_audit
from graspl.commands.assumptions import conversations, writes_everywhere
from graspl.data.task import TaskDataModule
from graspl.directions.basis import Directions
from graspl.directions.from_layers import LayerSingular, residual_spectra
from graspl.errors import GrasplError
from graspl.runs import Lineage, RunFacts, RunFolder, adapter_of, write_json_atomic, write_text_atomic


def audit(
    adapter: Path,
    *,
    data: LightningDataModule | None = None,
    directions: list[Path] | None = None,
    references: list[Path] | None = None,
    rows: str | None = None,
    text: str | None = None,
    base_model: str | None = None,
    dtype: str = "auto",
    limits: Limits = Limits(),  # noqa: B008 - frozen
    out: Path = Path("audit"),
) -> AuditReport:
    """Check an adapter against directions that it must not use, known bad adapters, and limits on its behaviour.

    From weights alone it takes seconds and needs no base model; rows, text and data run the base model. Writes `audit.json`
    and `audit.html`. The exit code is 0 where every check passed, 1 where one failed, and 2 for a mistake.

    Args:
        adapter: adapter folder in PEFT format, run folder or checkpoint.
        data: task whose suites are run with the adapter and without it; no judge is asked.
        directions: files of `graspl identify`, or folders of such files, that the adapter must not use.
        references: other adapters of the base model, e.g. naive fits that are known to have spilled over.
        rows: what the adapter was trained on, for the assumption report.
        text: unlabelled conversations by many writers, for the assumption report.
        base_model: hub name or folder; the one that the adapter names by default.
        dtype: of the base model's weights.
        limits: what is allowed.
        out: folder for the two files.
    """
    folder, files = adapter_of(adapter), [*_directions_files(directions or [])]
    others = [adapter_of(path) for path in references or []]
    for place in (folder, *files, *others):
        _require_sound(place)
    found = read_adapter(folder)
    found = replace(found, base_model=base_model or found.base_model)
    runs_model = any(each is not None for each in (data, rows, text))
    sources: dict[str, list[Any]] = {
        "adapter": [folder],
        "directions": files,
        "reference": others,
        "base model": [found.base_model] if runs_model else [],
    }
    lineage, page = Lineage(RunFolder(out)), RunFolder(out).audit
    with RunFacts(out).command("audit"):
        lineage.remember(each for every in sources.values() for each in every)
        known = {str(path): read_adapter(adapter_of(path)) for path in references or []}
        reliance = {str(path): along(found, Directions.load(path), str(path)) for path in files}
        likeness = {name: beside(found, other) for name, other in known.items()}
        suites = behaviour(str(found.path), found.base_model, data, dtype=dtype) if data is not None else {}
        report = AuditReport(
            adapter=str(adapter),
            base_model=found.base_model,
            sha256=found.sha256,
            limits=limits,
            checks=checks(limits, reliance, likeness, suites, found.whole),
            assumptions=_assumptions(found, [*known.values()], rows, text, dtype),
            suites=suites,
            sites=site_facts(found),
            along=reliance,
            beside=likeness,
            out=out,
        )
        read = data.sources() if isinstance(data, TaskDataModule) else []
        sources["rows"] = [*read, *(each for each in (rows, text) if each is not None)]
        with lineage.writing([page, page.with_suffix(".html")], sources):
            write_json_atomic(page, report.plain())
            write_text_atomic(page.with_suffix(".html"), render_audit(report))
    return report


def _require_sound(place: Path) -> None:
    """Refuse an adapter or directions that are not as they were made: an audit must not pass because something was left out.

    What has no record, as a foreign adapter, is taken as it is.
    """
    lineage = Lineage(RunFolder(place.parent))
    wrong = lineage.complaint(place) if place.name in lineage.read() else None
    if wrong is not None:
        raise GrasplError(f"{place}: {wrong}; make it again, or audit a copy in another folder")


def _directions_files(given: list[Path]) -> Iterator[Path]:
    """Yield the files, and those in the folders."""
    for path in given:
        inside = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not inside:
            raise GrasplError(f"directions: {path} holds no .safetensors files; run graspl identify first")
        yield from inside


def _assumptions(
    adapter: AdapterFolder, others: list[AdapterFolder], rows: str | None, text: str | None, dtype: str
) -> dict[str, Any]:
    """Return the report on the adapter's own leading directions; empty where it writes to no residual stream."""
    spectra = residual_spectra(adapter).values() if writes_everywhere(adapter) else []
    if not spectra or any(float(each.S[0]) == 0 for each in spectra):
        return {}
    k = min(8, *(each.D.shape[1] for each in spectra))
    given = conversations(adapter.base_model, rows=rows, text=text)
    directions = LayerSingular(k=k)(adapter)
    return check_assumptions(adapter, directions, **given, others=others, dtype=dtype).plain()
