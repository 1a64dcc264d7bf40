"""`graspl audit`: a check of any LoRA adapter before it ships."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from graspl.activations.assumptions import check_assumptions
from graspl.activations.streams import tokenized
from graspl.adapters.base_model import load_tokenizer
from graspl.adapters.files import AdapterFolder, read_adapter
from graspl.adapters.residual import writers_by_layer
from graspl.auditing import AuditReport, Limits, along, behaviour, beside, checks, site_facts
from graspl.auditing.page import render_audit
from graspl.data.tokens import with_chat_template
from graspl.directions.basis import Directions
from graspl.directions.from_layers import LayerSingular, residual_spectra
from graspl.errors import GrasplError
from graspl.runs import adapter_of, write_json_atomic, write_text_atomic


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

    Raises:
        GrasplError: something given cannot be used.
    """
    found = read_adapter(adapter_of(adapter))
    found = replace(found, base_model=base_model or found.base_model)
    others = {str(path): read_adapter(adapter_of(path)) for path in references or []}
    reliance = {
        str(path): along(found, Directions.load(path), str(path)) for path in _library(directions or [])
    }
    likeness = {name: beside(found, other) for name, other in others.items()}
    suites = behaviour(str(found.path), found.base_model, data, dtype=dtype) if data is not None else {}
    report = AuditReport(
        adapter=str(adapter),
        base_model=found.base_model,
        sha256=found.sha256,
        limits=limits,
        checks=checks(limits, reliance, likeness, suites),
        assumptions=_assumptions(found, [*others.values()], {"rows": rows, "text": text}, dtype),
        suites=suites,
        sites=site_facts(found),
        along=reliance,
        beside=likeness,
        out=out,
    )
    write_json_atomic(out / "audit.json", report.plain())
    write_text_atomic(out / "audit.html", render_audit(report))
    return report


def _library(given: list[Path]) -> list[Path]:
    """Return the directions files, and those in folders."""
    found: list[Path] = []
    for path in given:
        inside = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not inside:
            raise GrasplError(
                f"directions: {path} holds no .safetensors files; give files made by graspl identify"
            )
        found += inside
    return found


def _assumptions(
    adapter: AdapterFolder, others: list[AdapterFolder], sources: dict[str, str | None], dtype: str
) -> dict[str, Any]:
    """Return the report on the adapter's own leading directions; empty where it writes to no residual stream."""
    written = writers_by_layer(adapter.sites)
    if not written or not all(written.values()):
        return {}
    spectra = residual_spectra(adapter).values()
    if any(float(each.S[0]) == 0 for each in spectra):
        return {}
    given: dict[str, Any] = {name: source for name, source in sources.items() if source}
    if given:
        tokenizer = with_chat_template(load_tokenizer(adapter.base_model))
        given = {
            name: tokenized(source, tokenizer, limit=256, max_length=1024) for name, source in given.items()
        }
    k = min(8, *(each.U.shape[1] for each in spectra))
    return check_assumptions(
        adapter, LayerSingular(k=k)(adapter), **given, others=others, dtype=dtype
    ).plain()
