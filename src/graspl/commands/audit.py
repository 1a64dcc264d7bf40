"""`graspl audit`: a check of any LoRA adapter before it ships."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from rich.table import Table

from graspl.activations.assumptions import check_assumptions
from graspl.activations.streams import tokenized
from graspl.adapters.base_model import load_tokenizer
from graspl.adapters.files import AdapterFolder, read_adapter
from graspl.adapters.residual import writers_by_layer
from graspl.auditing import AuditReport, Limits, along, behaviour, beside, checks, site_facts
from graspl.auditing.page import render_audit
from graspl.commands.terminal import console
from graspl.data.tokens import with_chat_template
from graspl.directions.basis import Directions
from graspl.directions.from_layers import LayerSingular, residual_spectra
from graspl.errors import GrasplError
from graspl.reporting.tables import figure
from graspl.runs import adapter_of, write_json_atomic, write_text_atomic


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `graspl audit`."""
    parser.add_argument(
        "adapter", type=Path, help="folder of an adapter in PEFT format, a run folder or a checkpoint"
    )
    # An option by name and not by place, as in graspl fit
    parser.add_subclass_arguments(
        LightningDataModule, "data", required=False, help="a task whose suites are run"
    )
    parser.add_function_arguments(audit, skip={"adapter", "data"})


def audit(
    adapter: Path,
    data: LightningDataModule | None = None,
    directions: list[Path] | None = None,
    references: list[Path] | None = None,
    rows: str | None = None,
    text: str | None = None,
    base_model: str | None = None,
    dtype: str = "auto",
    limits: Limits = Limits(),  # noqa: B008 - never changed
    out: Path = Path("audit"),
) -> AuditReport:
    """Check an adapter: spectra, whether its directions may be believed, what it leans on, and what it does off its task.

    From weights alone it takes seconds and needs no base model; rows, text and data run the base model. Writes
    `audit.json` and `audit.html`. Exit code 0 where every check passed, 1 where one failed, 2 for a mistake.

    Args:
        adapter: folder of an adapter in PEFT format, a run folder or a checkpoint.
        data: a task whose suites are run with the adapter and without it; none needs a judge.
        directions: files, or folders of files, that `graspl identify` made: a library of what it shall not lean on.
        references: other adapters of the base model, e.g. naive fine-tunes that are known to have spilled over.
        rows: what the adapter was trained on, for the assumption report.
        text: unlabelled conversations by many writers, for the same.
        base_model: hub name or folder; the one that the adapter names where None.
        dtype: of the base model's weights.
        limits: what is allowed.
        out: folder to write.

    Raises:
        GrasplError: something given cannot be used.
    """
    found = read_adapter(adapter_of(adapter))
    if base_model is not None:
        found = AdapterFolder(found.path, base_model, found.sha256, found.sites)
    beyond = {
        str(path): along(found, Directions.load(path), str(path)) for path in _library(directions or [])
    }
    likeness = {str(path): beside(found, read_adapter(adapter_of(path))) for path in references or []}
    sites = site_facts(found)
    suites = behaviour(str(found.path), found.base_model, data, dtype=dtype) if data is not None else {}
    report = AuditReport(
        str(adapter),
        found.base_model,
        found.sha256,
        sites,
        _assumptions(found, references or [], rows, text, dtype),
        beyond,
        likeness,
        suites,
        limits,
        checks(limits, beyond, likeness, suites),
    )
    write_json_atomic(out / "audit.json", _plain(report))
    write_text_atomic(out / "audit.html", render_audit(report))
    _print(report, out)
    return report


def _library(given: list[Path]) -> list[Path]:
    """Return the directions files named, and those in folders named."""
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
    adapter: AdapterFolder, references: list[Path], rows: str | None, text: str | None, dtype: str
) -> dict[str, Any]:
    """Return the report on the adapter's own leading directions; empty where it writes to no residual stream."""
    written = writers_by_layer(adapter.sites)
    if not written or not all(written.values()):
        return {}
    spectra = residual_spectra(adapter).values()
    if any(float(each.S[0]) == 0 for each in spectra):
        return {}
    widest = min(each.U.shape[1] for each in spectra)
    given: dict[str, Any] = {name: source for name, source in (("rows", rows), ("text", text)) if source}
    if given:
        tokenizer = with_chat_template(load_tokenizer(adapter.base_model))
        given = {
            name: tokenized(source, tokenizer, limit=256, max_length=1024) for name, source in given.items()
        }
    checked = check_assumptions(
        adapter,
        LayerSingular(k=min(8, widest))(adapter),
        **given,
        others=[read_adapter(adapter_of(path)) for path in references],
        dtype=dtype,
    )
    return checked.plain()


def _plain(report: AuditReport) -> dict[str, Any]:
    """Return what `audit.json` holds."""
    named = {
        name: {key: each._asdict() for key, each in getattr(report, name).items()}
        for name in ("sites", "along", "beside")
    }
    suites = {
        name: {"scores": each.scores, "rise": each.rise._asdict() if each.rise else None}
        for name, each in report.suites.items()
    }
    return {
        "verdict": report.verdict,
        "adapter": report.adapter,
        "base_model": report.base_model,
        "sha256": report.sha256,
        "limits": asdict(report.limits),
        "checks": [check._asdict() for check in report.checks],
        "assumptions": report.assumptions,
        "suites": suites,
        **named,
    }


def _print(report: AuditReport, out: Path) -> None:
    terminal = console()
    table = Table("check", "value", "95 % interval", "limit", "outcome", title=f"audit of {report.adapter}")
    for check in report.checks:
        interval = "-" if check.low is None else f"{figure(check.low)} to {figure(check.high)}"
        table.add_row(check.name, figure(check.value), interval, figure(check.limit), check.outcome)
    terminal.print(table)
    assumed = (
        f"{report.assumptions['verdict']}: {report.assumptions['reason']}" if report.assumptions else "-"
    )
    behaviour_line = (
        () if report.suites else ("behaviour: not looked at; --data configs/suites/audit.yaml does",)
    )
    for line in (
        f"assumptions: {assumed}",
        *behaviour_line,
        f"verdict: {report.verdict}" + ("" if report.checks else " (nothing was held against a limit)"),
        f"audit: {out / 'audit.json'}, {out / 'audit.html'}",
    ):
        terminal.print(line, soft_wrap=True, highlight=False, markup=False)
