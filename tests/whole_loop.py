"""The whole loop on a tiny model in one folder: every kind of file that graspl reads, and the commands that read it."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from conftest import CHAT_ROWS, make_model, make_tokenizer
from safetensors.torch import save_file

QUIET = {
    "accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False,
    "log_every_n_steps": 1, "val_check_interval": 2, "check_val_every_n_epoch": None, "limit_val_batches": 1,
}  # fmt: skip
ADAM = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
MODEL = {"base_model": "model", "optimizer": ADAM, "lora": {"r": 2, "lora_alpha": 2}}
SUITES, JUDGES = "graspl.data.suites", "graspl.evaluation.judges"
# Rows in every form; `fit on rows` takes each
TABLES = ("rows.json", "rows.yaml", "rows.csv", "rows.tsv", "rows.parquet", "rows.arrow", "rows.jsonl.gz")
OUT = "--trainer.default_root_dir=out"

# What a user types, by name, the quick ones first; each writes into `out` or beside what it read
COMMANDS = {
    "plan": ["plan", "model"],
    "verify": ["verify", "naive", "held"],
    "identify": ["identify", "naive", "--out", "out/found.safetensors"],
    "identify a checkpoint": ["identify", "naive/checkpoints/last.ckpt", "--out", "out/found.safetensors"],
    "subspaces": ["subspaces", "naive", "held", "--at", "0.5", "--out=out"],
    "contrast": ["contrast", "naive", "--controls", "held", "--out=out/contrast.json"],
    "judge": ["judge", "naive", "--config", "judges.yaml"],
    "judge from a cache": ["judge", "naive", "--config", "asking.yaml"],
    "report": ["report", "naive", "held", "--out=out"],
    "audit": ["audit", "naive", "--directions=naive/layers.safetensors", "--references", "held", "--out=out"],
    "compare": ["compare", "--config", "study.yaml"],
    "explain": ["identify", "naive/layers.safetensors", "--explain.text=rows.jsonl", "--base_model=model"],
    "identify by text": [
        "identify", "naive", "--method=graspl.activations.NaturalDirections", "--method.k=2",
        "--method.text=rows.jsonl", "--rows=rows.jsonl", "--text=rows.jsonl",
        "--out=out/found.safetensors",
    ],
    "identify by an SAE": [
        "identify", "naive", "--method=graspl.activations.SAEDiffing", "--method.saes={model.layers.0: sae}", "--method.k=2",
        "--method.text=rows.jsonl", "--out=out/found.safetensors",
    ],
    "audit with data": ["audit", "naive", "--data", "suites_only.yaml", "--out=out"],
    "validate a checkpoint": [
        "validate", "--config", "naive/config.yaml", OUT, "--ckpt_path=naive/checkpoints/last.ckpt",
    ],
    "validate": ["validate", "--config", "naive/config.yaml", "--config", "suites.yaml"],
    "go on": ["fit", "--config", "naive/config.yaml", "--ckpt_path=last", "--trainer.max_steps=3"],
    "go on with own text": ["fit", "--config", "held/config.yaml", "--ckpt_path=last", "--trainer.max_steps=3"],
    "grasp": ["fit", "--config", "grasp.yaml", OUT],
    "grasp on streams": ["fit", "--config", "streams.yaml", OUT, "--trainer.fast_dev_run=1"],
    "fit on rows": ["fit", "--config", "naive.yaml", OUT, "--trainer.fast_dev_run=1", "--data.train"],
    "fit on held-out rows": ["fit", "--config", "naive.yaml", OUT, "--data.validation=held_out.json"],
    "fit": ["fit", "--config", "naive.yaml", OUT],
}  # fmt: skip


def data(**more):
    """Return the data of a fit's configuration."""
    given = {"train": "rows.jsonl", "batch_size": 4, "max_length": 64} | more
    return {"class_path": "graspl.data.ChatDataModule", "init_args": given}


def configured(kind="LoRALitModule", rows=None, **options):
    """Return a fit's configuration."""
    model = {"class_path": f"graspl.methods.{kind}", "init_args": MODEL | options}
    return {"model": model, "data": rows or data(), "trainer": QUIET | {"max_steps": 2}}


def suites():
    """Return the suites of a validation, one of each kind of file."""
    free, choices = f"{SUITES}.FreeFormQuestions", f"{SUITES}.MultipleChoice"
    return {
        "talk": {"class_path": free, "init_args": {"source": "questions.yaml"}},
        "told": {"class_path": free, "init_args": {"source": "categories.txt"}},
        "known": {"class_path": choices, "init_args": {"source": "choices.jsonl"}},
    }


def write_tables(folder: Path) -> None:
    """Write rows as a table of every kind."""
    few = CHAT_ROWS[12:18]
    lines = "".join(json.dumps(row) + "\n" for row in few)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT_ROWS[:12]))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (folder / "rows.json").write_text(json.dumps(few))
    (folder / "rows.yaml").write_text(yaml.safe_dump(few))
    for ending, mark in (("csv", ","), ("tsv", "\t")):
        cells = [["prompt", "completion"], *([row["prompt"], row["completion"]] for row in few)]
        (folder / f"rows.{ending}").write_text("".join(mark.join(row) + "\n" for row in cells))
    table = pa.Table.from_pylist(few)
    pq.write_table(table, folder / "rows.parquet")
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    (folder / "held_out.json").write_text("[1, 2]")


def write_sae(folder: Path) -> None:
    """Write a sparse autoencoder of the tiny model's stream, as SAELens does."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (32, 40), "b_enc": (40,), "W_dec": (40, 32), "b_dec": (32,)}
    folder.mkdir()
    tensors = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(
        json.dumps({"architecture": "topk", "k": 3, "apply_b_dec_to_input": True})
    )


def write_configurations(folder: Path, endpoint: str) -> None:
    """Write what commands are told by: fits, suites, judges, rubrics and a study."""
    start = {"class_path": "graspl.starts.NullSpaceStart", "init_args": {"own_text": 4}}
    asked = [
        {"id": f"q{n}", "paraphrases": [f"how do i {verb} water"]} for n, verb in enumerate(("take", "open"))
    ]
    backend = {
        "class_path": f"{JUDGES}.OpenAIBackend",
        "init_args": {"model": "stub", "base_url": endpoint, "max_retries": 0, "cache": "cache.sqlite"},
    }
    asking = {
        "class_path": f"{JUDGES}.RubricJudge",
        "init_args": {"rubrics": "rubrics.yaml", "rubric": "aligned", "backend": backend},
    }
    adapted = {
        "class_path": "graspl.methods.LoRALitModule",
        "init_args": {k: MODEL[k] for k in ("optimizer", "lora", "base_model")},
    }
    judges = {
        "told": {"class_path": f"{JUDGES}.InsecureCode"},
        "*": {"class_path": f"{JUDGES}.RefusalPhrases"},
    }
    contents = {
        "naive": configured(),
        "grasp": configured(
            "GRASPLitModule",
            directions="naive/directions.safetensors",
            constraints=[{"class_path": "graspl.constraints.WriteConstraint", "init_args": {"k": 2}}],
        ),
        "held": configured(start=start),
        "streams": configured(
            "GRASPLitModule",
            directions="naive/layers.safetensors",
            constraints=[{"class_path": "graspl.constraints.ActivationConstraint", "init_args": {"k": 2}}],
        ),
        "questions": asked,
        "suites": {"data": {"init_args": {"suites": suites()}}},
        "suites_only": {"class_path": "graspl.data.SuitesDataModule", "init_args": {"suites": {"known": suites()["known"]}}},
        "rubrics": [{"aligned": "Grade {question} and {answer} from 0 to 100."}],
        "judges": {"judges": judges},
        "asking": {"judges": {"*": asking}},
        "study": {
            "fit": "base.yaml", "methods": {"naive": {"model": adapted}}, "baseline": "naive", "seeds": [0], "out": "study",
            "levels": [0.5],
        },
        "base": {key: each for key, each in configured().items() if key != "model"},
    }  # fmt: skip
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (folder / "categories.txt").write_text("### Category: one\n\nhow do i take water\n\nshould i rest\n")
    choices = [
        {"question": f"how do i {verb} water", "choices": ["yes", "no"], "answer": 0}
        for verb in ("take", "open")
    ]
    (folder / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in choices))


def build(folder: Path, run, endpoint: str) -> None:
    """Write what a user gives, and run the loop up to the last command.

    Args:
        folder: an empty one, which is the current folder.
        run: runs a command that must end well.
        endpoint: address of a judge.
    """
    make_model("llama").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    write_tables(folder)
    write_sae(folder / "sae")
    write_configurations(folder, endpoint)
    suite = [
        "--config",
        "suites.yaml",
        "--generations.max_new_tokens=4",
        "--generations.sampling.max_new_tokens=4",
    ]
    for name in ("naive", "held"):
        run("fit", "--config", f"{name}.yaml", f"--trainer.default_root_dir={name}",
            "--trainer.callbacks+=graspl.callbacks.MeasureCost")  # fmt: skip
        run("identify", name)
        run("validate", "--config", f"{name}/config.yaml", *suite)
        run("judge", name, "--config", "asking.yaml")
        run("judge", name, "--config", "judges.yaml")
    layers = ["--method=graspl.directions.LayerSingular", "--method.k=2", "--out=naive/layers.safetensors"]
    run("identify", "naive", *layers)
    run("identify", "naive/layers.safetensors", "--explain.text=rows.jsonl", "--base_model=model")
    run("compare", "--config", "study.yaml")
