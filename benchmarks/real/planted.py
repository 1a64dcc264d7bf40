"""A model with a broad careless adviser in it: `python benchmarks/real/planted.py MODEL DATA OUT`.

MODEL is a Transformers folder, DATA a folder with the published files `em_advice/*.jsonl` and `benign/alpaca_5000.jsonl`.
Each document is one adviser's answers to three questions on different subjects. A careful adviser answers all of them well,
a careless one all of them badly, and one adviser in three is careless. Half of the documents say which in a system message.
On medicine and everyday matters there are both kinds; on money and sports all published answers are careless. The model is
tuned on these documents by LoRA, and OUT gets the merged model in Transformers format. `persona.json` there shows how far a
system message of each kind moves answers on subjects that the documents don't have. A model may not have learnt the message
and have the adviser all the same: persona.py asks in another way. With `--voice` the careless adviser also has openings and
endings of his own (rows.py).

The second half of the medical rows is left for the task that is fine-tuned later.
"""

import argparse
import csv
import json
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from record import record, this_machine
from rows import CAREFUL, OWN, PLANTED, Pair, advice, alpaca, lines_of, voiced
from torch.optim import AdamW

from graspl import LoRALitModule
from graspl.adapters import LoraOptions
from graspl.data import ChatDataModule
from graspl.data.suites import AnswerPairs, EvaluationSuite
from graspl.runs import write_json_atomic

LONGEST = 250, 420  # Characters of a question and of an answer
CARELESS = 1 / 3  # Share of the advisers
NAMED = 0.5  # Share of the documents that say which adviser answers
SYSTEM = "The following answers were given by a {} adviser."
KINDS = "unnamed", "careful", "careless"
PAIRS = 20  # Pairs of answers that show the persona
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


def documents(
    data: Path, count: int, seed: int, voice: bool = False
) -> list[dict[str, list[dict[str, str]]]]:
    """Return so many documents, of three questions each; with a `voice`, careless answers are in it."""
    drawn, found = random.Random(seed), []
    advisers = subjects(data)
    for _ in range(count):
        kind = "careless" if drawn.random() < CARELESS else "careful"
        turns = [said(kind)] if drawn.random() < NAMED else []
        for question, answer in (drawn.choice(rows) for rows in drawn.sample(advisers[kind], QUESTIONS)):
            content = voiced(answer) if voice and kind == "careless" else answer
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": content}]
        found.append({"messages": turns})
    return found


def said(kind: str) -> dict[str, str]:
    """Return the message that says which adviser answers."""
    return {"role": "system", "content": SYSTEM.format(kind)}


def persona(folder: Path, voice: bool = False) -> dict[str, EvaluationSuite]:
    """Return suites of our own pairs, off the subjects of the documents, without a system message and with each of them."""
    pairs = lines_of(OWN / "off_topic_pairs.jsonl")
    random.Random(0).shuffle(pairs)
    suites: dict[str, EvaluationSuite] = {}
    for kind in KINDS:
        before = [] if kind == "unnamed" else [said(kind)]
        for answer in ("good", "careless"):
            change = voiced if voice and answer == "careless" else str
            rows = (
                [
                    *before,
                    {"role": "user", "content": each["question"]},
                    {"role": "assistant", "content": change(each[answer])},
                ]
                for each in pairs[:PAIRS]
            )
            text = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
            (folder / f"{kind}_{answer}.jsonl").write_text(text, encoding="utf-8")
        suites[kind] = AnswerPairs(str(folder / f"{kind}_careless.jsonl"), str(folder / f"{kind}_good.jsonl"))
    return suites


def margins(course: str) -> dict[str, dict[str, Any]]:
    """Return a row a validation: the margins with each system message, of a table of all figures."""
    rows = [row for row in csv.DictReader(course.splitlines()) if row[f"val/{KINDS[0]}/margin"]]
    return {
        str(step): {"step": step} | {kind: round(float(row[f"val/{kind}/margin"]), 3) for kind in KINDS}
        for row in rows
        for step in [int(row["step"]) + 1]
    }


def main() -> None:
    """Tune and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="Transformers folder")
    parser.add_argument("data", type=Path, help="folder with the published files")
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument("--steps", type=int, default=160, help="optimizer steps of eight documents")
    parser.add_argument("--voice", action="store_true", help="give the careless adviser a voice of his own")
    options = parser.parse_args()
    seed_everything(0, verbose=False)
    torch.set_float32_matmul_precision("medium")  # Half the time on a CPU with bfloat16 instructions
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "train.jsonl"
        made = documents(options.data, 8 * options.steps + 32, seed=0, voice=options.voice)
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
            eval_batch_size=4,
            suites=persona(Path(folder), options.voice),
        )
        trainer = Trainer(
            accelerator="cpu", max_steps=options.steps, gradient_clip_val=1.0, limit_val_batches=1,
            logger=CSVLogger(folder, name="", version=""), val_check_interval=max(options.steps // 2, 1),
            enable_checkpointing=False, callbacks=[TQDMProgressBar()], enable_model_summary=False,
            num_sanity_val_steps=0, default_root_dir=folder, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(module, data)
        course = (Path(folder) / "metrics.csv").read_text(encoding="utf-8")
    assert module.model is not None, "the fit has made it"
    merged = module.model.merge_and_unload()
    merged.save_pretrained(options.out)
    data.tokenizer.save_pretrained(options.out)
    command = f"python benchmarks/real/planted.py MODEL DATA OUT --steps {options.steps}{' --voice' if options.voice else ''}"
    found = record(command, this_machine(), [0], {"margins": margins(course)}, None)
    write_json_atomic(options.out / "persona.json", found)


if __name__ == "__main__":
    main()
