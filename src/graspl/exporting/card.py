"""The model card of an exported model."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedTokenizerBase

from graspl import __version__
from graspl.adapters.files import AdapterFolder
from graspl.analysis.figures import Figure
from graspl.analysis.runs import Rate
from graspl.errors import printable
from graspl.exporting.facts import FitFacts
from graspl.exporting.model import Merged
from graspl.reporting.tables import figure

TEMPLATE = Path(__file__).with_name("card.md")
SETTINGS = "graspl_config.yaml"
"""Beside the card: all settings of the fit."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
TASK = "text-generation"  # As the hub calls what the model does
LOADED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

name = {name!r}
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained({base})
{adapter}turns = [{{"role": "user", "content": "..."}}]
inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
ends = GenerationConfig.from_pretrained(name)
ids = model.generate(**inputs, generation_config=ends, max_new_tokens=256)
print(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :]))"""
WITH_ADAPTER = "model = PeftModel.from_pretrained(model, name)\n"


class Exported(NamedTuple):
    """What a card is about."""

    name: str  # Of the folder or of the hub's repository
    base_model: str  # Hub name or folder
    adapter: AdapterFolder  # As it was read
    tokenizer: PreTrainedTokenizerBase  # As it is exported
    ends: Sequence[int]  # Ids of the tokens at which an answer ends
    facts: FitFacts  # What the run tells
    merged: Merged | None  # What merging did; None where the adapter is exported alone


def card_of(exported: Exported) -> ModelCard:
    """Return the card, made with `huggingface_hub`'s own classes: metadata with the figures, and a text.

    Texts of the run's files are escaped, so that none of them changes the card's layout.
    """
    facts, merged = exported.facts, exported.merged
    tokens = [
        f"{_code(str(exported.tokenizer.convert_ids_to_tokens(each)))} ({each})" for each in exported.ends
    ]
    return ModelCard.from_template(
        card_data=_metadata(exported),
        template_path=str(TEMPLATE),
        title=_plain(exported.name),
        kind="LoRA adapter" if merged is None else "Merged model",
        base=_code(exported.base_model),
        method=_code(facts.method) if facts.method else "",
        figures=[_row(each) for each in facts.figures],
        rates=[_rate(each) for each in facts.rates],
        notes=[_plain(each) for each in facts.notes],
        snippet=_snippet(exported),
        ends=" or ".join(tokens),
        decoding="It names no sampling: graspl measured without the base model's own settings.",
        data=_code(facts.data) if facts.data else "",
        rows={_code(name): _code(digest) if digest else "-" for name, digest in facts.rows.items()},
        facts=_method(exported),
        commands="\n".join(printable(each) for each in facts.commands).replace("```", "'''"),
        settings_file=SETTINGS,
    )


def _metadata(exported: Exported) -> ModelCardData:
    on_hub = not Path(exported.base_model).exists() and exported.base_model.count("/") == 1
    merged = exported.merged is not None
    datasets = [
        name for name, digest in exported.facts.rows.items() if not digest and HUB_NAME.fullmatch(name)
    ]
    return ModelCardData(
        base_model=exported.base_model if on_hub else None,
        base_model_relation=("finetune" if merged else "adapter") if on_hub else None,
        datasets=datasets or None,
        library_name="transformers" if merged else "peft",
        pipeline_tag=TASK,
        tags=["graspl", "lora", *(["grasp"] if exported.facts.method == "GRASPLitModule" else [])],
        model_name=exported.name,
        eval_results=[*map(_result, exported.facts.figures), *map(_judged, exported.facts.rates)] or None,
    )


def _result(each: Figure) -> EvalResult:
    interval = (
        {}
        if each.interval is None
        else {"low": each.interval.low, "high": each.interval.high, "questions": each.interval.n}
    )
    base = {} if each.base is None else {"base_model": each.base}
    return EvalResult(
        task_type=TASK,
        dataset_type=each.suite,
        dataset_name=each.suite,
        metric_type=each.score,
        metric_name=each.name,
        metric_value=each.value,
        metric_args=(interval | base) or None,
    )


def _judged(each: Rate) -> EvalResult:
    return EvalResult(
        task_type=TASK,
        dataset_type=f"{each.suite}/judged",
        dataset_name=each.suite,
        metric_type=each.of,
        metric_name=f"judged {each.of}",
        metric_value=each.share.value,
        metric_args={"low": each.share.low, "high": each.share.high, "n": each.share.n},
    )


def _row(each: Figure) -> dict[str, str]:
    return {
        "name": each.name,
        "suite": _code(each.suite),
        "value": figure(each.value),
        "interval": "-"
        if each.interval is None
        else f"{figure(each.interval.low)} to {figure(each.interval.high)}",
        "base": figure(each.base),
        "score": _code(each.score),
    }


def _rate(each: Rate) -> dict[str, Any]:
    low, high = figure(each.share.low), figure(each.share.high)
    shown = {"suite": _code(each.suite), "of": _plain(each.of), "value": figure(each.share.value)}
    return shown | {"interval": f"{low} to {high}", "n": each.share.n}


def _method(exported: Exported) -> dict[str, str]:
    facts, merged = exported.facts, exported.merged
    found = {
        "base model": _code(exported.base_model),
        "SHA-256 of the adapter": _code(exported.adapter.sha256),
    }
    found |= {"module": _code(facts.method)} if facts.method else {}
    found |= {kind: ", ".join(map(_code, names)) for kind, names in facts.parts.items()}
    found |= (
        {"LoRA": ", ".join(_code(f"{name}: {value}") for name, value in facts.lora.items())}
        if facts.lora
        else {}
    )
    if merged is not None:
        told = f"{figure(merged.difference)} at most, in {merged.dtype}, of logits up to {figure(merged.largest)}"
        found["difference of a logit from that of the adapter on its base model"] = told
    versions = facts.versions or {"graspl": __version__}
    return found | {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}


def _snippet(exported: Exported) -> str:
    alone = exported.merged is None
    text = LOADED.format(
        name=printable(exported.name),
        base=repr(printable(exported.base_model)) if alone else "name",
        adapter=WITH_ADAPTER if alone else "",
    )
    return ("from peft import PeftModel\n" if alone else "") + text.replace("```", "'''")


def _plain(text: str) -> str:
    """Return a text in one line that no mark of Markdown or HTML acts in."""
    line = " ".join(printable(text).split())
    return "".join(f"\\{each}" if each in "\\*_[]<>|#" else each for each in line)


def _code(text: str) -> str:
    """Return a text in one line as code."""
    line = " ".join(printable(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`"
