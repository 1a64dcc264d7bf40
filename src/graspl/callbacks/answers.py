"""Answers in the model's own words where a fit ends, judged by rule."""

import logging
from dataclasses import dataclass

from lightning import Callback, LightningModule, Trainer

from graspl.callbacks.evaluation import answered
from graspl.evaluation import Sampling, TransformersGenerator
from graspl.evaluation.judges import Judge
from graspl.evaluation.judging import judge_rows, rates_of
from graspl.methods.lora import LoRALitModule
from graspl.runs import RunFolder, write_json_atomic, write_json_lines_atomic

log = logging.getLogger(__name__)


@dataclass(eq=False)
class JudgeAtEnd(Callback):
    """Answers the suites of questions where a fit ends and judges the answers, so that `graspl compare` shows the rates.

    It writes the files that `graspl validate` and `graspl judge` would write: `generations.jsonl`, `judgements.jsonl` and
    `judged.json`. A fit of several processes writes none.
    """

    judges: dict[str, Judge]
    """By suite; `*` judges the others. Those by rule (`CapitalLetters`, `Matches`) need no model."""
    sampling: Sampling = Sampling(n=1, temperature=0.0, max_new_tokens=32, batch_size=8)  # noqa: RUF009 - never changed
    """Of the answers."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer, judge and write."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        questions = data.questions() if hasattr(data, "questions") else {}
        if not questions or not isinstance(pl_module, LoRALitModule):
            return
        if trainer.world_size > 1:
            log.warning("answers: %d processes write none; validate and judge with one", trainer.world_size)
            return
        generator = TransformersGenerator(pl_module.model, data.tokenizer)
        rows = []
        pl_module.finisher.apply(pl_module)  # as the adapter is saved
        for suite, asked in questions.items():
            rows += answered(generator, suite, asked, data.tokenizer, self.sampling)
        pl_module.finisher.undo(pl_module)
        judged, run = judge_rows(rows, self.judges), RunFolder(trainer.default_root_dir)
        write_json_lines_atomic(run.generations, rows)
        write_json_lines_atomic(run.judgements, judged)
        write_json_atomic(run.judged, {"suites": rates_of(judged, self.judges), "usage": {}})
