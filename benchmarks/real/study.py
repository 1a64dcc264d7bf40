"""Fits of a real model: `python benchmarks/real/study.py MODEL ROWS --methods naive contrastive --seeds 0 1 2`.

MODEL is a Transformers folder. ROWS is a folder with `train.jsonl`, `text.jsonl`, and pairs `<suite>_harmful.jsonl` and
`<suite>_good.jsonl` for the suites task, far and near; `general.jsonl` is for the loss on general text.

Each fit ends as one JSON file in results/real/<task>; a fit whose file is there is not run again. A margin is the mean
log-probability a token of the harmful answer minus the good one's.
"""

import argparse
import platform
import subprocess
import tempfile
import time
import warnings
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer, seed_everything
from torch.optim import AdamW
from transformers.utils.logging import disable_progress_bar

from graspl import GRASPLitModule, LoRALitModule
from graspl.activations import NaturalDirections
from graspl.constraints import WriteConstraint
from graspl.data import ChatDataModule, ChoiceCollator, read_conversations
from graspl.data.batches import PaddedCollator
from graspl.data.suites import AnswerPairs
from graspl.data.tokens import render, tokenize
from graspl.directions import TopSingular
from graspl.evaluation import Sampling, TransformersGenerator
from graspl.evaluation.logprobs import candidate_logprobs, text_scores
from graspl.evaluation.metrics import pair_margins
from graspl.methods import ThrowAwayFit
from graspl.penalties import KLPenalty
from graspl.runs import write_json_atomic
from graspl.starts import NullSpaceStart, PlainStart

SCRIPT = "python benchmarks/real/study.py"
SUITES = ("task", "far", "near")
STEPS = (0, 4, 8, 12, 20, 30, 40, 60)
TEXT = dict.fromkeys(
    ("contrastive_covered", "kl_covered"), "text_covered.jsonl"
)  # General text of methods that do not read text.jsonl
KL = partial(KLPenalty, rows="text", rows_per_step=4)


def methods() -> dict[str, tuple[Any, float, dict[str, Any]]]:
    """Return class, learning rate and options of each method."""
    frozen = partial(PlainStart, train_A=False)
    write = [WriteConstraint()]
    top = ThrowAwayFit(identification=TopSingular(), steps=10, stable=1.1)
    return {
        "naive": (LoRALitModule, 2e-4, {}),
        "random_frozen": (LoRALitModule, 2e-4, {"start": frozen()}),
        "random_basis": (LoRALitModule, 5e-4, {"start": NullSpaceStart(kind="random")}),
        "contrastive": (LoRALitModule, 2e-4, {"start": NullSpaceStart()}),
        "contrastive_5e-4": (LoRALitModule, 5e-4, {"start": NullSpaceStart()}),
        "contrastive_1e-3": (LoRALitModule, 1e-3, {"start": NullSpaceStart()}),
        "contrastive_covered": (LoRALitModule, 5e-4, {"start": NullSpaceStart()}),
        "null": (LoRALitModule, 5e-4, {"start": NullSpaceStart(kind="null")}),
        "kl_text": (LoRALitModule, 2e-4, {"penalties": [KL(weight=1.0)]}),
        "kl_covered": (LoRALitModule, 2e-4, {"penalties": [KL(weight=1.0)]}),
        "grasp_default": (
            GRASPLitModule,
            2e-4,
            {"directions": ThrowAwayFit(identification=NaturalDirections())},
        ),
        "grasp_write": (GRASPLitModule, 2e-4, {"constraints": write, "directions": top}),
        "contrastive_kl": (LoRALitModule, 5e-4, {"start": NullSpaceStart(), "penalties": [KL(weight=1.0)]}),
    }


class Measure(Callback):
    """Measures margins and the loss on general text at some steps, and answers questions at the last."""

    def __init__(self, rows: Path, last: int, pairs: int, questions: int) -> None:
        self.rows, self.last, self.pairs, self.questions = rows, last, pairs, questions
        self.curve: list[dict[str, Any]] = []
        self.seconds = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the batches, and measure the start."""
        tokenizer = trainer.datamodule.tokenizer
        self.batches = {}
        for name in SUITES:
            items = AnswerPairs(
                str(self.rows / f"{name}_harmful.jsonl"),
                str(self.rows / f"{name}_good.jsonl"),
                limit=self.pairs,
            ).read()
            collate = ChoiceCollator(tokenizer)
            self.batches[name] = [collate(items[first : first + 4]) for first in range(0, len(items), 4)]
        general = read_conversations(str(self.rows / "general.jsonl"), limit=self.pairs)
        kept = [tokenize(tokenizer, row.messages, origin=row.origin) for row in general]
        collate_text = PaddedCollator(int(tokenizer.pad_token_id))
        self.text = [collate_text(kept[first : first + 8]) for first in range(0, len(kept), 8)]
        self._measure(trainer, pl_module, 0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Measure at the steps of STEPS."""
        if trainer.global_step in STEPS:
            self._measure(trainer, pl_module, trainer.global_step)

    @torch.no_grad()
    def _measure(self, trainer: Any, pl_module: Any, step: int) -> None:
        began, training = time.monotonic(), pl_module.model.training
        pl_module.model.eval()
        point: dict[str, Any] = {"step": step}
        with pl_module.unedited():
            for name, batches in self.batches.items():
                margins = torch.cat([pair_margins(candidate_logprobs(pl_module(b), b), b) for b in batches])
                point[name] = {
                    "margin": float(margins.mean()),
                    "preferred": float((margins > 0).double().mean()),
                    "items": [round(value, 4) for value in margins.tolist()],
                }
            losses = torch.cat([text_scores(pl_module(b), b["labels"])[0] for b in self.text])
            point["general_loss"] = float(losses.double().mean())
            if step == self.last and self.questions:
                point["answers"] = self._answers(trainer, pl_module)
        self.curve.append(point)
        shown = " ".join(f"{name} {point[name]['margin']:+.3f}" for name in SUITES)
        print(f"  step {step}: {shown} general {point['general_loss']:.3f}", flush=True)
        pl_module.model.train(training)
        self.seconds += time.monotonic() - began

    def _answers(self, trainer: Any, pl_module: Any) -> dict[str, list[str]]:
        generator = TransformersGenerator(pl_module.model, trainer.datamodule.tokenizer)
        greedy = Sampling(temperature=0.0, max_new_tokens=24, batch_size=8)
        found = {}
        for name in SUITES:
            asked = read_conversations(str(self.rows / f"{name}_good.jsonl"), limit=self.questions)
            prompts = [
                render(trainer.datamodule.tokenizer, row.messages[:-1], origin=row.origin, prompt=True)
                for row in asked
            ]
            found[name] = [answers[0] for answers in generator.write(prompts, greedy)]
        return found


def fit(model: str, rows: Path, method: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one fit, and return what is kept of it."""
    kind, rate, parts = methods()[method]
    seed_everything(seed, verbose=False)
    module = kind(
        base_model=model,
        dtype="bfloat16",
        optimizer=partial(AdamW, lr=rate, weight_decay=0.0, fused=True),
        **parts,
    )
    data = ChatDataModule(
        str(rows / "train.jsonl"),
        base_model=model,
        text=str(rows / TEXT.get(method, "text.jsonl")),
        seed=seed,
        batch_size=8,
        validation_share=0.01,
        max_length=256,
        too_long="drop",
    )
    steps = options.steps
    measure = Measure(rows, steps, options.pairs, options.questions)
    began = time.monotonic()
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, gradient_clip_val=1.0, callbacks=[measure], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        num_sanity_val_steps=0, default_root_dir=tempfile.gettempdir(), log_every_n_steps=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, data)
    about = {"method": method, "seed": seed, "learning_rate": rate, "steps": steps}
    taken = {"seconds": round(time.monotonic() - began), "seconds_measuring": round(measure.seconds)}
    return about | taken | {"curve": measure.curve}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="Transformers folder")
    parser.add_argument("rows", type=Path, help="folder with the task's rows")
    parser.add_argument("--methods", nargs="+", default=["naive", "contrastive_5e-4"], help="of `methods`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the fits")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps")
    parser.add_argument("--pairs", type=int, default=16, help="of each suite")
    parser.add_argument("--questions", type=int, default=8, help="answered freely at the end, near and far")
    parser.add_argument(
        "--out", type=Path, default=Path("results/real/first_look"), help="folder of the JSON files"
    )
    options = parser.parse_args()
    disable_progress_bar()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    for seed in options.seeds:
        for method in options.methods:
            path = options.out / f"{method}_{seed}.json"
            if path.exists():
                continue
            print(f"{method}, seed {seed}", flush=True)
            found = fit(options.model, options.rows, method, seed, options)
            record = {
                "command": f"{SCRIPT} MODEL ROWS --methods {method} --seeds {seed} --steps {options.steps}",
                "commit": commit,
                "date": datetime.now(UTC).date().isoformat(),
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
                "seeds": [seed],
                "figures": found,
            }
            write_json_atomic(path, record)


if __name__ == "__main__":
    main()
