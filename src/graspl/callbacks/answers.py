"""Answers in the model's own words where a fit ends, judged by rule."""

import logging
from dataclasses import dataclass
from typing import Any

from lightning import Callback, LightningModule, Trainer

from graspl.adapters import adapter_off
from graspl.callbacks.evaluation import answered
from graspl.callbacks.record import sources_of
from graspl.evaluation import Sampling, TransformersGenerator
from graspl.evaluation.judges import Judge
from graspl.evaluation.judging import judge_rows, rates_of
from graspl.methods.lora import LoRALitModule
from graspl.runs import Lineage, RunFolder, write_json_atomic, write_json_lines_atomic

log = logging.getLogger(__name__)


@dataclass(eq=False)
class JudgeAnswers(Callback):
    """Answers the suites of questions where a fit ends and judges the answers, so that `graspl compare` shows the rates.

    It writes the files that `graspl validate` and `graspl judge` would write: `generations.jsonl`, `judgements.jsonl` and
    `judged.json`. A fit of several processes writes none.
    """

    judges: dict[str, Judge]
    """By suite; `*` judges the others. Those by rule (`CapitalLetters`, `Matches`) need no model."""
    sampling: Sampling = Sampling(n=1, temperature=0.0, max_new_tokens=32, batch_size=8)  # noqa: RUF009 - never changed
    """Of the answers."""
    every_validation: bool = False
    """Judge at each validation of the fit too, and log `val/<suite>/judged` and the base model's `base_judged`. Methods
    can then be compared at matched adherence: where a fit ends, one may simply have gone further than another."""

    def __post_init__(self) -> None:
        self._forget()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier fit, and refuse a model that cannot write."""
        self._forget()
        if self._answers(trainer, pl_module):
            TransformersGenerator(pl_module.model, trainer.datamodule.tokenizer).check()  # type: ignore[attr-defined]

    def _forget(self) -> None:
        self.base: dict[str, float] = {}  # Rates of the base model, measured at the first validation
        self.last: tuple[int, list[dict[str, Any]]] = (-1, [])  # Step and answers of the last validation

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rates, where they are wanted."""
        inside = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not (self.every_validation and inside and self._answers(trainer, pl_module)):
            return
        assert isinstance(pl_module, LoRALitModule), "_answers has looked"
        assert pl_module.model is not None, "configure_model comes first"
        # Within a validation the module has transformed the factors already
        if not self.base:
            with adapter_off(pl_module.model), pl_module.unedited():
                self.base = self._rates(self._asked(trainer, pl_module))
        self.last = trainer.global_step, self._asked(trainer, pl_module)
        rates = self._rates(self.last[1])
        logged = {f"val/{suite}/judged": rate for suite, rate in rates.items()}
        logged |= {f"val/{suite}/base_judged": rate for suite, rate in self.base.items()}
        pl_module.log_dict(logged)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer, judge and write; a fit that is resumed after its last step has no end of training."""
        if not self._answers(trainer, pl_module):
            return
        assert isinstance(pl_module, LoRALitModule), "_answers has looked"
        step, rows = self.last
        if step != trainer.global_step:
            pl_module.attached.attach(pl_module.model, pl_module.directions_in_use)
            pl_module.finisher.apply(pl_module)  # as the adapter is saved
            rows = self._asked(trainer, pl_module)
            pl_module.finisher.undo(pl_module)
        judged, run = judge_rows(rows, self.judges), RunFolder(trainer.default_root_dir)
        lineage, sources = Lineage(run), sources_of(trainer, pl_module)
        write_json_lines_atomic(run.generations, rows)
        lineage.record([run.generations], sources)
        made_from = {"answers": [run.generations], "file": sources.get("file", [])}
        with lineage.writing([run.judgements, run.judged], made_from):
            write_json_lines_atomic(run.judgements, judged)
            write_json_atomic(run.judged, {"suites": rates_of(judged, self.judges), "usage": {}})

    def _answers(self, trainer: Trainer, module: LightningModule) -> bool:
        """Return whether there is anything to answer, and one process that could."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not (hasattr(data, "questions") and data.questions() and isinstance(module, LoRALitModule)):
            return False
        if trainer.world_size > 1:
            log.warning("answers: %d processes write none; validate and judge with one", trainer.world_size)
            return False
        return True

    def _asked(self, trainer: Trainer, module: LoRALitModule) -> list[dict[str, Any]]:
        """Return the model's answers to all questions."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        generator, rows = TransformersGenerator(module.model, data.tokenizer), []
        for suite, asked in data.questions().items():
            rows += answered(generator, suite, asked, data.tokenizer, self.sampling)
        return rows

    def _rates(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Return the judged rate of each suite that has one."""
        rates = rates_of(judge_rows(rows, self.judges), self.judges)
        return {suite: each["rate"] for suite, each in rates.items() if each["rate"] is not None}
