"""Tasks of the LM evaluation harness (`lm_eval`) as a suite, measured by the harness itself."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graspl.data.suites.base import ModelSuite
from graspl.data.tables import note_read
from graspl.errors import GrasplError, foreign
from graspl.quiet import without_bars
from graspl.ranges import NonNegativeInt, PositiveInt


@dataclass
class LMEvalTasks(ModelSuite):
    """Benchmarks as the harness's own command measures them: the same prompts, metrics and figures.

    With one task the scores bear the metric's name (`acc`, `acc_stderr`), with several the task's too (`arc_easy/acc`).
    Needs the extra `lm_eval`. A task's file may name Python of its own, which is run: name only tasks that you trust.

    Source:
        EleutherAI, lm-evaluation-harness (MIT).
    """

    tasks: list[str]
    """Names of the harness, or its YAML files."""
    num_fewshot: NonNegativeInt | None = None
    """Examples in the prompt; None leaves it to each task."""
    limit: PositiveInt | None = None
    """Use only so many rows of each task, from the start."""
    batch_size: PositiveInt = 8
    """Rows measured at a time."""
    apply_chat_template: bool = False
    """Put the prompts into the chat template; as in the harness, not by default."""
    include_path: str | None = None
    """Folder with more YAML files, whose tasks may be named."""

    def __post_init__(self) -> None:
        self._found: tuple[list[Any], Any] | None = None

    def prepare(self) -> None:
        """Find the tasks and their rows."""
        try:
            from lm_eval.config.evaluate_config import EvaluatorConfig  # type: ignore[import-not-found]
        except ImportError as error:
            raise GrasplError("lm_eval is not installed; pip install 'graspl[lm_eval]'") from error
        named = ", ".join(self.tasks)
        with foreign(f"tasks: {named}", "the harness cannot load them", "correct the names or files"):
            config = EvaluatorConfig(tasks=list(self.tasks), include_path=self.include_path)
            manager = config.process_tasks()
            loaded: Mapping[str, Any] = manager.load(config.tasks)["tasks"]
        for name in self.tasks:
            if name.endswith(".yaml"):
                note_read(name)
        for task in loaded.values():
            for source in _sources(task.config):
                note_read(source)
        self._found = list(config.tasks), manager

    def measure(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Return the harness's figures by name; those that are no numbers are left out."""
        if self._found is None:
            self.prepare()
        assert self._found is not None, "prepare sets it"
        from lm_eval import simple_evaluate  # type: ignore[import-not-found]
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

        tasks, manager = self._found
        fix = "see whether lm_eval's own command measures it"
        tried = foreign(f"tasks: {', '.join(self.tasks)}", "the harness fails", fix)
        with _as_it_was(model), without_bars(), tried:
            wrapped = HFLM(pretrained=model, tokenizer=deepcopy(tokenizer), batch_size=self.batch_size)
            found: Any = simple_evaluate(
                wrapped,
                tasks=tasks,
                num_fewshot=self.num_fewshot,
                limit=self.limit,
                apply_chat_template=self.apply_chat_template,
                task_manager=manager,
                log_samples=False,
            )
        return _scores(found)


def _sources(config: Any) -> Iterator[str]:
    """Yield the files of a task's rows, or its name on the hub."""
    files = (config.dataset_kwargs or {}).get("data_files")
    if files is None:
        yield from [config.dataset_path] if config.dataset_path else []
        return
    every = files.values() if isinstance(files, Mapping) else [files]
    for each in every:
        yield from each if isinstance(each, list) else [each]


def _scores(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a result of the harness, `metric` or `task/metric`; a filter's name stands behind it."""
    results, counts = found["results"], found["n-samples"]
    scores: dict[str, float] = {}
    for task, figures in results.items():
        for key, value in figures.items():
            metric, _, kind = key.partition(",")
            if not kind or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            name = metric if kind == "none" else f"{metric} ({kind})"
            scores[name if len(results) == 1 else f"{task}/{name}"] = float(value)
    return scores | {"num_items": sum(each["effective"] for each in counts.values())}


@contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Put the model's mode and the random states back after the block: the harness sets all of them."""
    modes = {module: module.training for module in model.modules()}
    kept = random.getstate(), np.random.get_state()
    cuda = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        for module, training in modes.items():
            module.training = training
