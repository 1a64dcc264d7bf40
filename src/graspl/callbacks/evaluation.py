"""Files that a validation leaves: the figures, and answers in the model's own words."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from graspl import __version__
from graspl.adapters import resolve_base_model, thin_svd, update_norm
from graspl.analysis.scores import headline
from graspl.callbacks.record import sources_of
from graspl.data.questions import Question
from graspl.data.task import TaskDataModule
from graspl.data.tokens import empty_thought, render
from graspl.errors import GrasplError
from graspl.evaluation import Sampling, TransformersGenerator, VLLMGenerator
from graspl.methods.lora import LoRALitModule
from graspl.methods.parts import parts_of
from graspl.methods.validation import module_reliance
from graspl.ranges import NonNegativeInt, PositiveInt
from graspl.runs import Lineage, RunFolder, write_json_atomic, write_json_lines_atomic

log = logging.getLogger(__name__)
Rows = list[dict[str, Any]]  # Of a JSON lines file


class SaveEvaluation(Callback):
    """Writes what `graspl validate` measured to `<default_root_dir>/evaluation.json`."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it; a validation inside a fit only logs."""
        if trainer.state.fn != "validate" or not isinstance(pl_module, LoRALitModule):
            return
        suites = pl_module.validation.scores()
        reliance = module_reliance(pl_module)
        rho = [site["rho"] for site in reliance.values() if "rho" in site]
        whole = {"rho_mean": sum(rho) / len(rho) if rho else None, "rho_max": max(rho, default=None)}
        content = {
            "graspl": __version__,
            "model": type(pl_module).__name__,
            "parts": parts_of(pl_module),
            "base_model": pl_module.base_model,
            "adapter": pl_module.adapter,
            "checkpoint": trainer.ckpt_path,
            "directions": pl_module.directions if isinstance(pl_module.directions, str) else None,
            "metrics": headline(suites) | whole,
            "suites": suites,
            "sites": _sites(pl_module, reliance),
            "asked_behind": _asked_behind(trainer.datamodule),  # type: ignore[attr-defined]
        }
        values = pl_module.validation.items()
        if trainer.is_global_zero:
            run = RunFolder(trainer.default_root_dir)
            with Lineage(run).writing([run.items, run.evaluation], sources_of(trainer, pl_module)):
                write_json_lines_atomic(run.items, _items(trainer.datamodule, values))  # type: ignore[attr-defined]
                write_json_atomic(run.evaluation, content)
            log.info("evaluation: %s", run.evaluation)


def _asked_behind(data: Any) -> str | None:
    """Return the empty thought behind which choices are asked; None where the data or its template does not tell."""
    if not isinstance(data, TaskDataModule):
        return None
    try:
        return empty_thought(data.tokenizer)
    except GrasplError:  # Some templates want other turns than one question
        return None


def _items(data: Any, values: dict[str, list[tuple[int, float]]]) -> Rows:
    """Return one row for each item of choices: suite, item, group, value, and text: what was asked."""
    rows = []
    for suite, found in values.items():
        items = dict(enumerate(data.choice_items(suite))) if hasattr(data, "choice_items") else {}
        for place, value in found:
            item = items.get(place)
            row = {"suite": suite, "item": (item.id if item else "") or str(place)}
            row |= {"group": item.group if item else "", "value": value}
            rows.append(row | ({"text": item.messages[-1]["content"]} if item else {}))
    return rows


def _sites(module: LoRALitModule, reliance: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return each site's reliance, norm and spectrum."""
    sites = {}
    for site in module.whole_sites():
        spectrum = thin_svd(site.B.detach(), site.A.detach(), site.scaling, site=site.name).S
        size = update_norm(site.B, site.A, site.scaling)
        sites[site.name] = reliance.get(site.name, {}) | {"norm": size, "singular_values": spectrum.tolist()}
    return sites


@dataclass(eq=False)
class SaveGenerations(Callback):
    """Writes answers in the model's own words to `<default_root_dir>/generations.jsonl` in `graspl validate`.

    Every question of a suite of questions is answered as `sampling` says; `graspl judge` judges the answers, now, later
    or again. Of the other suites a few prompts are answered greedily, as examples to read. They are evenly spaced over
    the suite, so that every run of a comparison answers the same ones.
    """

    prompts: NonNegativeInt = 8
    """Examples of each other suite; 0 writes none."""
    max_new_tokens: PositiveInt = 64
    """Of an example."""
    sampling: Sampling = Sampling()  # noqa: RUF009 - never changed
    """Of the answers to questions."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """Writes the answers to questions; `vllm` must be installed, and reads the base model and the adapter again."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a model that cannot write, before anything is measured."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        wanted = self.prompts or (hasattr(data, "questions") and data.questions())
        measured = trainer.state.fn == "validate" and trainer.world_size == 1
        if wanted and measured and self.engine == "transformers" and isinstance(pl_module, LoRALitModule):
            TransformersGenerator(pl_module.model, data.tokenizer).check()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the prompts of the last validation."""
        self._seen: dict[int, list[str]] = {}

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Remember the batch's prompts."""
        if trainer.state.fn == "validate" and batch:
            self._seen.setdefault(dataloader_idx, []).extend(batch.get("prompts", []))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer and write; a validation inside a fit writes nothing."""
        if trainer.state.fn != "validate" or not isinstance(pl_module, LoRALitModule):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        questions = data.questions() if hasattr(data, "questions") else {}
        if trainer.world_size > 1:
            # Under sharding every process would need to take the same number of steps
            if questions:
                log.warning("generations: %d processes write none; validate with one", trainer.world_size)
            return
        rows = self._examples(pl_module, data) if self.prompts else []
        if questions:
            generator = self._generator(pl_module, data.tokenizer, trainer.ckpt_path)
            for suite, asked in questions.items():
                rows += answered(generator, suite, asked, data.tokenizer, self.sampling)
        run = RunFolder(trainer.default_root_dir)
        write_json_lines_atomic(run.generations, rows)
        Lineage(run).record([run.generations], sources_of(trainer, pl_module))

    def _generator(self, module: LoRALitModule, tokenizer: Any, checkpoint: Any) -> Any:
        if self.engine == "transformers":
            return TransformersGenerator(module.model, tokenizer)
        if checkpoint is not None and module.adapter is None:
            raise GrasplError("generations.engine: vLLM cannot read a checkpoint; name model.adapter")
        return VLLMGenerator(resolve_base_model(module.base_model), module.adapter, max(module.lora.r, 64))

    def _examples(self, module: LoRALitModule, data: Any) -> Rows:
        generator = TransformersGenerator(module.model, data.tokenizer)
        greedy = Sampling(temperature=0.0, max_new_tokens=self.max_new_tokens, batch_size=self.prompts)
        rows = []
        for index, seen in self._seen.items():
            distinct, suite = list(dict.fromkeys(seen)), data.suite_names()[index]
            count = min(self.prompts, len(distinct))
            chosen = [distinct[place * len(distinct) // count] for place in range(count)]
            for prompt, (answer,) in zip(chosen, generator.write(chosen, greedy), strict=True):
                rows.append(
                    {"suite": suite, "sampling": greedy.in_force(), "prompt": prompt, "answer": answer}
                )
        return rows


def answered(
    generator: Any, suite: str, asked: Sequence[Question], tokenizer: Any, sampling: Sampling
) -> Rows:
    """Return one row of `generations.jsonl` for each answer to a suite's questions."""
    prompts = [render(tokenizer, each.messages, origin=each.origin, prompt=True) for each in asked]
    log.info("generations: %d questions of %s, %d answers each", len(asked), suite, sampling.n)
    written, rows = generator.write(prompts, sampling), []
    for question, prompt, answers in zip(asked, prompts, written, strict=True):
        row = {"suite": suite, "question": question.id, "group": question.group}
        row |= {"sampling": sampling.in_force(), "messages": question.messages, "prompt": prompt}
        rows += [row | {"sample": sample, "answer": answer} for sample, answer in enumerate(answers)]
    return rows
