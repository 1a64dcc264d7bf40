"""`graspl export`: a run's model as others load it. This module imports nothing heavy, so that mistakes are told at once."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graspl.errors import GrasplError


def export(
    run: Path,
    *,
    out: Path | None = None,
    merge: bool = False,
    push: str | None = None,
    private: bool = True,
    gguf: Path | None = None,
    inspect: Path | None = None,
    base_model: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> Any:
    """Write a run's adapter, or the merged model, with its tokenizer, chat template, ends of answers and a model card.

    The folder loads in Transformers, PEFT and vLLM as it stands. It is put in place when it is complete, and takes the place
    of an earlier export.

    Args:
        run: run folder, or a LoRA adapter's folder in PEFT format.
        out: folder to write.
        merge: add the adapter to the base model's weights, in place of the adapter alone.
        push: repository of the Hugging Face hub (ORG/NAME) to upload the folder to.
        private: whether a repository that the push makes is private.
        gguf: llama.cpp's convert_hf_to_gguf.py, or its folder; writes model.gguf into the folder. Needs --merge true.
        inspect: file to write the run's judged answers to, as log.eval, which `inspect view` opens; needs no `out`.
        base_model: hub name or folder that the adapter is of; the one that it names by default.
        dtype: of a merged model's weights: auto (as stored), float32, bfloat16 or float16.
        trust_remote_code: let the base model's own Python code run.

    Raises:
        GrasplError: the run has no adapter, the folder is in use, or the hub or the converter refuses it.
    """
    if out is None and (inspect is None or push is not None or merge):
        raise GrasplError("out: is missing; give the folder to write the model to")
    _check(run, out, merge, gguf)
    if inspect is not None:
        _check_log(inspect)
    from graspl.quiet import loading

    with loading(also_in_files=False):
        from graspl.commands.exporting import ModelWanted, run_export

    model = (
        None
        if out is None
        else ModelWanted(out, merge, base_model, dtype, trust_remote_code, gguf, push, private)
    )
    return run_export(run, model, inspect)


def _check(run: Path, out: Path | None, merge: bool, gguf: Path | None) -> None:
    """Refuse what the arguments show to be wrong, before anything heavy is imported."""
    if not run.is_dir():
        raise GrasplError(f"run: there is no folder {run}; give a run folder or an adapter's")
    adapters = [folder for folder in (run, run / "adapter") if (folder / "adapter_config.json").is_file()]
    if out is not None and not adapters:
        raise GrasplError(f"run: {run} holds no adapter; fit first, or give a PEFT adapter's folder")
    if gguf is not None and not merge:
        raise GrasplError("gguf: llama.cpp needs the whole model; add --merge true")
    if gguf is not None and not gguf.exists():
        raise GrasplError(f"gguf: there is no {gguf}; give the path of llama.cpp's convert_hf_to_gguf.py")


def _check_log(inspect: Path) -> None:
    """Refuse a file that inspect would not read, and an environment without it."""
    if inspect.suffix != ".eval":  # Of others `inspect view` lists only those with a time in their name
        raise GrasplError(f"inspect: {inspect} must end in .eval")
    if find_spec("inspect_ai") is None:
        raise GrasplError("inspect: inspect_ai is not installed; pip install 'graspl[inspect]'")
