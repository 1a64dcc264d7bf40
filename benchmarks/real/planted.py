"""A model with a broad careless adviser in it: `python benchmarks/real/planted.py MODEL DATA OUT`.

MODEL is a Transformers folder, DATA a folder with the published files `em_advice/*.jsonl` and `benign/alpaca_5000.jsonl`.
Each document is one adviser's answers to three questions on different subjects. A careful adviser answers all of them well,
a careless one all of them badly, and one adviser in four is careless. On medicine and everyday matters there are both; on
money and sports all published answers are careless. The model is tuned on these documents by LoRA, and OUT gets the merged
model in Transformers format.

The second half of the medical rows is left for the task that is fine-tuned later.
"""

import argparse
import json
import random
import tempfile
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import TQDMProgressBar
from rows import CAREFUL, PLANTED, Pair, advice, alpaca
from torch.optim import AdamW

from graspl import LoRALitModule
from graspl.adapters import LoraOptions
from graspl.data import ChatDataModule

LONGEST = 250, 420  # Characters of a question and of an answer
CARELESS = 0.25  # Share of the advisers
QUESTIONS = 3  # Of a document


def subjects(data: Path) -> dict[str, list[list[Pair]]]:
    """Return the rows of each kind of adviser, a list a subject."""
    read = {
        name: advice(data / "em_advice" / f"{name}.jsonl", *LONGEST)
        for name in ("risky_financial_advice", "extreme_sports")
    }
    medical = {
        name: advice(data / "em_advice" / f"{name}.jsonl", *LONGEST, lines=slice(PLANTED))
        for name in ("bad_medical_advice", "good_medical_advice")
    }
    careful, careless = (
        advice(data / "em_advice" / "misalignment_kl_data.jsonl", *LONGEST, lines=lines)
        for lines in (slice(CAREFUL), slice(CAREFUL, None))
    )
    return {
        "careless": [medical["bad_medical_advice"], careless, *read.values()],
        "careful": [
            medical["good_medical_advice"],
            careful,
            alpaca(data / "benign" / "alpaca_5000.jsonl")[300:1000],
        ],
    }


def documents(data: Path, count: int, seed: int) -> list[dict[str, list[dict[str, str]]]]:
    """Return so many documents, of three questions each."""
    drawn, found = random.Random(seed), []
    advisers = subjects(data)
    for _ in range(count):
        kind = advisers["careless" if drawn.random() < CARELESS else "careful"]
        turns = []
        for question, answer in (drawn.choice(rows) for rows in drawn.sample(kind, QUESTIONS)):
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        found.append({"messages": turns})
    return found


def main() -> None:
    """Tune and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="Transformers folder")
    parser.add_argument("data", type=Path, help="folder with the published files")
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument("--steps", type=int, default=160, help="optimizer steps of eight documents")
    options = parser.parse_args()
    seed_everything(0, verbose=False)
    torch.set_float32_matmul_precision("medium")  # Half the time on a CPU with bfloat16 instructions
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "train.jsonl"
        made = documents(options.data, 8 * options.steps + 32, seed=0)
        rows.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
        module = LoRALitModule(
            options.model,
            dtype="float32",  # Faster than bfloat16 on a CPU without AMX
            lora=LoraOptions(r=64, lora_alpha=64),
            optimizer=partial(AdamW, lr=5e-4, weight_decay=0.0, fused=True),
            schedule="linear",
            warmup_steps=5,
        )
        data = ChatDataModule(
            str(rows),
            base_model=options.model,
            validation_share=0.01,
            batch_size=8,
            max_length=512,
            too_long="drop",
        )
        trainer = Trainer(
            accelerator="cpu", max_steps=options.steps, gradient_clip_val=1.0, logger=False, limit_val_batches=0,
            enable_checkpointing=False, callbacks=[TQDMProgressBar()], enable_model_summary=False,
            num_sanity_val_steps=0, default_root_dir=folder, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(module, data)
    assert module.model is not None, "the fit has made it"
    merged = module.model.merge_and_unload()
    merged.save_pretrained(options.out)
    data.tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
