"""The folder of an export: written whole under another name, then put in place."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graspl.adapters.base_model import resolve_base_model
from graspl.adapters.files import AdapterFolder, read_adapter
from graspl.analysis.figures import Figure
from graspl.errors import GrasplError, foreign
from graspl.exporting.card import SETTINGS, Exported, card_of
from graspl.exporting.facts import FitFacts, fit_facts
from graspl.exporting.further import write_gguf
from graspl.exporting.model import Merged, generation_of, tokenizer_of, write_adapter, write_merged
from graspl.runs import Lineage, RunFolder, adapter_of, atomic_path

CARD = "README.md"
GGUF = "model.gguf"  # Within the folder


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how."""

    merge: bool = False
    """Add the adapter to the base model's weights; else the adapter is exported alone."""
    base_model: str | None = None
    """Hub name or folder that the adapter is of; the one that it names where None."""
    dtype: str = "auto"
    """Of a merged model's weights."""
    trust_remote_code: bool = False
    """Let the base model's own Python code run."""
    converter: Path | None = None
    """llama.cpp's `convert_hf_to_gguf.py`."""
    name: str | None = None
    """In the card; the folder's where None."""


class Export(NamedTuple):
    """What was exported."""

    folder: Path  # Where it lies
    files: list[str]  # Names in it
    figures: list[Figure]  # Of the card
    notes: list[str]  # What a user of it must know
    merged: Merged | None  # What merging did


def export_model(run: Path, out: Path, options: ExportOptions) -> Export:
    """Write an adapter or a merged model with its tokenizer, generation config, card and records.

    Nothing is there before everything is: the folder is written under another name and renamed. It takes the place of an
    earlier export.

    Args:
        run: run folder, or a PEFT adapter's folder.
        out: folder to write; it must not be there, or be empty or an earlier export.
        options: what is exported, and how.

    Raises:
        GrasplError: the adapter is not as it was made, does not fit its base model, or the folder cannot be written.
    """
    check_target(out)
    place = adapter_of(run)
    known = run_of(place)
    _require_sound(place)
    adapter = read_adapter(place)
    base_model = options.base_model or adapter.base_model
    sources: dict[str, list[Any]] = {
        "adapter": [place], "base model": [base_model] if options.merge else [],
        "converter": [] if options.converter is None else [options.converter],
    }  # fmt: skip
    Lineage(RunFolder(out)).remember(each for every in sources.values() for each in every)
    facts = fit_facts(known) if known is not None else fit_facts(RunFolder(place / "none"))
    beside = _listed_in(known, out, sources)
    with beside, atomic_path(out) as scratch:
        scratch.mkdir()
        merged = _write(adapter, scratch, base_model, options, facts, options.name or out.resolve().name)
        _record(scratch, sources, facts)
        files = sorted(each.name for each in scratch.iterdir())
    return Export(out, files, facts.figures, [*facts.notes, *_notes(adapter, options)], merged)


def run_of(adapter: Path) -> RunFolder | None:
    """Return the run folder that an adapter's folder lies in as its own; None of another adapter."""
    run = RunFolder(adapter.parent)
    return run if adapter.resolve() == run.adapter.resolve() and run.config.exists() else None


def check_target(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier export, which would be lost.

    Raises:
        GrasplError: names what lies in it.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    fix = "give a new folder"
    if not out.is_dir():
        raise GrasplError(f"out: {out} is a file; {fix}")
    try:
        known = Lineage(RunFolder(out)).read()
    except GrasplError:
        known = {}
    record = RunFolder(out).lineage.name
    others = [each.name for each in sorted(out.iterdir()) if each.name not in known and each.name != record]
    if CARD not in known or others:
        held = others[0] if others else CARD
        raise GrasplError(f"out: {out} holds {held}, which no export wrote, and it would be lost; {fix}")


def _write(
    adapter: AdapterFolder, folder: Path, base_model: str, options: ExportOptions, facts: FitFacts, name: str
) -> Merged | None:
    tokenizer = tokenizer_of(adapter.path, base_model, trust_remote_code=options.trust_remote_code)
    ends: Any = generation_of(tokenizer).eos_token_id
    merged = None
    if options.merge:
        merged = write_merged(
            adapter,
            folder,
            base_model,
            tokenizer,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
        )
    else:
        resolve_base_model(base_model)
        write_adapter(adapter, folder, base_model)
        generation_of(tokenizer).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    if facts.settings:
        (folder / SETTINGS).write_text(facts.settings, encoding="utf-8")
    card = card_of(Exported(name, base_model, adapter, tokenizer, ends, facts, merged))
    with foreign(folder / CARD, "the model card cannot be written", "report this"):
        card.save(folder / CARD)
    if options.converter is not None:
        write_gguf(options.converter, folder, folder / GGUF)
    return merged


def _record(folder: Path, sources: Mapping[str, list[Any]], facts: FitFacts) -> None:
    """Record what each file was made from; only the card is made from figures."""
    lineage = Lineage(RunFolder(folder))
    every = [each for each in sorted(folder.iterdir()) if each.name != CARD]
    lineage.record(every, sources)
    measured = {"evaluation": [each for each in facts.evaluated if each.exists()]}
    lineage.record([folder / CARD], {**sources, **measured})


def _listed_in(run: RunFolder | None, out: Path, sources: Mapping[str, list[Any]]) -> Any:
    """Return a context in which an export that lies in the run's own folder is recorded there too."""
    if run is None or not out.resolve().is_relative_to(run.path.resolve()):
        return nullcontext()
    if out.resolve().parent != run.path.resolve() or out.resolve() in (
        each.resolve() for each in vars(run).values() if each != run.path
    ):
        raise GrasplError(
            f"out: {out} is kept for the run's own files; give a folder of another name, or elsewhere"
        )
    return Lineage(run).writing([out], sources)


def _require_sound(adapter: Path) -> None:
    """Refuse an adapter that is not as it was made; one without a record is taken as it is."""
    lineage = Lineage(RunFolder(adapter.parent))
    wrong = lineage.complaint(adapter) if adapter.name in lineage.read() else None
    if wrong is not None:
        raise GrasplError(f"{adapter}: {wrong}; fit again, or export a copy in another folder")


def _notes(adapter: AdapterFolder, options: ExportOptions) -> Iterator[str]:
    if options.merge:
        return
    ranks, scales = {each.A.shape[0] for each in adapter.sites}, {each.scaling for each in adapter.sites}
    if len(ranks) > 1 or len(scales) > 1:
        yield "Sites differ in rank or scaling, which some engines ignore: for them export with --merge true."
    if adapter.whole:
        yield f"{', '.join(adapter.whole)} are trained in full, which vLLM does not load: for it export with --merge true."
