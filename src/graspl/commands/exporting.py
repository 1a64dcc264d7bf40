"""What `graspl export` does once its arguments are known to be right."""

from contextlib import nullcontext
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from graspl.adapters.base_model import resolve_base_model
from graspl.exporting import ExportOptions, check_hub, export_model, find_converter, push
from graspl.exporting.folder import Export, check_target, run_of
from graspl.reporting.tables import Shown, figure
from graspl.runs import RunFacts, adapter_of


def run_export(
    run: Path,
    out: Path,
    *,
    merge: bool,
    repo: str | None,
    private: bool,
    converter: Path | None,
    base_model: str | None,
    dtype: str,
    trust_remote_code: bool,
) -> Shown:
    """Export a run's model, and return what was written; the arguments are those of `graspl.commands.export`.

    Raises:
        GrasplError: see there.
    """
    disable_progress_bar()
    check_target(out)
    if base_model is not None:
        resolve_base_model(base_model)
    script = None if converter is None else find_converter(converter)
    api = None if repo is None else check_hub(repo)
    options = ExportOptions(merge, base_model, dtype, trust_remote_code, script, repo)
    known = run_of(adapter_of(run))
    with nullcontext() if known is None else RunFacts(known.path).command("export"):
        found = export_model(run, out, options)
        lines = _lines(found)
        if api is not None and repo is not None:
            lines.append(f"pushed: {push(api, repo, out, private=private)}")
    return Shown(found, lines)


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
