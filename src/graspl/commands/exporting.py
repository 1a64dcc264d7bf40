"""What `graspl export` does once its arguments are known to be right."""

from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from transformers.utils.logging import disable_progress_bar

from graspl.adapters.base_model import resolve_base_model
from graspl.exporting import ExportOptions, check_hub, export_model, find_converter, push
from graspl.exporting.folder import Export, check_target, run_of
from graspl.exporting.inspect_log import write_inspect_log
from graspl.reporting.tables import Shown, figure
from graspl.runs import RunFacts, RunFolder, adapter_of


class ModelWanted(NamedTuple):
    """How a model is exported; the fields are options of `graspl.commands.export`."""

    out: Path
    merge: bool
    base_model: str | None
    dtype: str
    trust_remote_code: bool
    gguf: Path | None
    push: str | None
    private: bool


def run_export(run: Path, model: ModelWanted | None, inspect: Path | None) -> Shown:
    """Export a run's model and its judged answers, each where it is wanted, and return what was written.

    Raises:
        GrasplError: see `graspl.commands.export`.
    """
    disable_progress_bar()
    known = run_of(adapter_of(run)) or (RunFolder(run) if RunFolder(run).evaluation.exists() else None)
    if model is not None:
        _check(model)
    found, lines = None, []
    with nullcontext() if known is None else RunFacts(known.path).command("export"):
        if model is not None:
            found, told = _export(run, model)
            lines += told
        if inspect is not None:
            count = write_inspect_log(known or RunFolder(run), inspect)
            lines.append(f"inspect: {count} judged answers in {inspect}; look at them with: inspect view")
    return Shown(found, lines)


def _check(model: ModelWanted) -> None:
    """Refuse a folder that is used and a base model that is not there, before the hub is asked."""
    check_target(model.out)
    if model.base_model is not None:
        resolve_base_model(model.base_model)


def _export(run: Path, model: ModelWanted) -> tuple[Export, list[str]]:
    script = None if model.gguf is None else find_converter(model.gguf)
    api = None if model.push is None else check_hub(model.push)
    options = ExportOptions(
        model.merge, model.base_model, model.dtype, model.trust_remote_code, script, model.push
    )
    found = export_model(run, model.out, options)
    lines = _lines(found)
    if api is not None and model.push is not None:
        lines.append(f"pushed: {push(api, model.push, model.out, private=model.private)}")
    return found, lines


def _lines(found: Export) -> list[str]:
    lines = [f"note: {each}" for each in found.notes]
    if found.merged is not None:
        lines.append(
            f"merged: in {found.merged.dtype}, logits differ from the adapter's by at most {figure(found.merged.difference)} "
            f"(the largest is {figure(found.merged.largest)})"
        )
    measured = [each for each in found.figures if each.name in ("adherence", "spillover")]
    for each in measured:
        between = f" ({figure(each.interval.low)} to {figure(each.interval.high)})" if each.interval else ""
        lines.append(f"{each.name}: {figure(each.value)}{between}")
    return [*lines, f"files: {', '.join(found.files)}", f"export: {found.folder}"]
