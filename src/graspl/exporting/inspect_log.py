"""A run's judged answers as a log of inspect, which `inspect view` opens; made with inspect's own classes (`inspect_ai`)."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graspl.analysis.runs import read_judged
from graspl.errors import GrasplError
from graspl.runs import Lineage, RunFolder, atomic_path

KEYS = ("suite", "question", "group", "sample")  # What an answer and its judgement have in common
SETTINGS = {"temperature": "temperature", "top_p": "top_p", "max_new_tokens": "max_tokens", "seed": "seed"}
NO_VERDICT = {
    "failed": "grader_failed",
    "unparsed": "invalid_response_format",
}  # As inspect calls the reasons
Rows = Sequence[Mapping[str, Any]]


def write_inspect_log(run: RunFolder, target: Path) -> int:
    """Write a run's judged answers as one log of inspect, and return their number.

    Every answer is a sample, with the judge's outcome as its score; an answer's number among several to one question is its
    epoch. Rates and their intervals are those of `judged.json`.

    Args:
        run: a run whose answers `graspl judge` has judged.
        target: file to write; its name ends in `.eval`.

    Raises:
        GrasplError: there are no judged answers, or they are not as they were made.
    """
    from inspect_ai.log import write_eval_log  # type: ignore[import-not-found]

    lineage = Lineage(run)
    known = lineage.read()
    for each in (run.judged, run.judgements, run.generations):
        wrong = lineage.complaint(each) if each.name in known else None
        wrong = wrong if each.exists() else "there is no such file"
        if wrong is not None:
            raise GrasplError(f"{each}: {wrong}; run: graspl judge {run.path}")
    answers = {_key(row): row for row in run.read_generations() if "question" in row}
    judged = [(row, answers[_key(row)]) for row in run.read_judgements() if _key(row) in answers]
    if not judged:
        raise GrasplError(
            f"{run.judgements}: judges none of the answers in {run.generations.name}; judge again"
        )
    log = _log(run, judged)
    with atomic_path(target) as scratch:
        write_eval_log(log, str(scratch))
    sources = {"judgements": [run.judgements, run.judged], "answers": [run.generations]}
    Lineage(RunFolder(target.parent)).record([target], sources)
    return len(judged)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(str(row.get(name)) for name in KEYS)


def _log(run: RunFolder, judged: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec  # type: ignore[import-not-found]
    from inspect_ai.model import GenerateConfig  # type: ignore[import-not-found]

    evaluation = run.read_evaluation() if run.evaluation.exists() else {}
    model, drawn = str(evaluation.get("base_model", "unknown")), judged[0][1].get("sampling", {})
    samples = [_sample(judgement, answer, model) for judgement, answer in judged]
    made = datetime.fromtimestamp(run.judged.stat().st_mtime, UTC).isoformat(timespec="seconds")
    config = {theirs: drawn[ours] for ours, theirs in SETTINGS.items() if ours in drawn}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            # The same answers and verdicts are the same evaluation
            eval_id=hashlib.sha256(run.judgements.read_bytes() + run.generations.read_bytes()).hexdigest()[
                :22
            ],
            created=made,
            task=f"graspl/{run.path.resolve().name}",
            dataset=EvalDataset(
                name=", ".join(dict.fromkeys(row["suite"] for row, _ in judged)),
                samples=len({each.id for each in samples}),
                sample_ids=list(dict.fromkeys(each.id for each in samples)),
            ),
            model=model,
            model_args={name: evaluation[name] for name in ("adapter", "checkpoint") if evaluation.get(name)},
            model_generate_config=GenerateConfig(**config),
            config=EvalConfig(epochs=max(each.epoch for each in samples)),
            packages={"graspl": str(evaluation.get("graspl", ""))},
        ),
        results=EvalResults(
            total_samples=len(samples), completed_samples=len(samples), scores=[*_scores(run)]
        ),
        samples=samples,
    )


def _sample(judgement: Mapping[str, Any], answer: Mapping[str, Any], model: str) -> Any:
    """Return one answer with its verdict."""
    from inspect_ai.log import EvalSample  # type: ignore[import-not-found]
    from inspect_ai.model import ModelOutput  # type: ignore[import-not-found]
    from inspect_ai.scorer import Score  # type: ignore[import-not-found]

    output = ModelOutput.from_content(model, answer["answer"])
    asked = [_message(each) for each in answer["messages"]]
    score = Score(
        value=judgement["outcome"],
        answer=answer["answer"],
        explanation=str(judgement.get("detail") or "") or None,
        reason=NO_VERDICT.get(judgement["outcome"]),
        metadata=dict(judgement.get("scores") or {}),
    )
    return EvalSample(
        id=f"{answer['suite']}/{answer['question']}",
        epoch=int(answer["sample"]) + 1,
        input=asked,
        target="",
        messages=[*asked, output.choices[0].message],
        output=output,
        scores={answer["suite"]: score},
        metadata={"suite": answer["suite"], "group": answer["group"], "sampling": answer.get("sampling", {})},
    )


def _message(each: Mapping[str, Any]) -> Any:
    from inspect_ai.model import (  # type: ignore[import-not-found]
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
    )

    kinds = {"system": ChatMessageSystem, "assistant": ChatMessageAssistant, "tool": ChatMessageTool}
    return kinds.get(each["role"], ChatMessageUser)(content=each["content"])


def _scores(run: RunFolder) -> list[Any]:
    """Return the rate of each suite with its interval; a suite without a verdict has none."""
    from inspect_ai.log import EvalMetric, EvalScore  # type: ignore[import-not-found]

    found = []
    for suite, each in read_judged(run).items():
        rate = each["rate"]
        low, high = (each["by_question"] or each["wilson"]) if rate is not None else (None, None)
        named = {each["of"]: rate, "low": low, "high": high}
        metrics = {
            name: EvalMetric(name=name, value=value) for name, value in named.items() if value is not None
        }
        found.append(EvalScore(name=suite, scorer=suite, reducer=None, metrics=metrics))
    return found
