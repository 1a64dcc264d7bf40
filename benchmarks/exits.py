"""Exit codes of fits on two processes: `python benchmarks/exits.py 50` writes results/two_process_exits.json.

Each fit is GRASP on a tiny model, started as Slurm starts the tasks of a job on two nodes, and ends after two steps.
"""

import argparse
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from graspl.runs import write_json_atomic

PROCESSES = 2
LIMIT = 600  # seconds for one process
WORDS = [f"word{number}" for number in range(16)]
TEMPLATE = "{% for m in messages %}{{ m.content }} <end> {% endfor %}"
JOB = {
    "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "graspl", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODELIST": "localhost",
    "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1",
}  # fmt: skip
FIT = [
    "fit", "--model=graspl.methods.GRASPLitModule", "--model.base_model=model", "--data=graspl.data.ChatDataModule",
    "--data.train=rows.jsonl", "--data.text=rows.jsonl", "--data.batch_size=2", "--trainer.accelerator=cpu",
    "--trainer.strategy=ddp", "--trainer.devices=1", "--trainer.num_nodes=2", "--trainer.max_steps=2",
    "--trainer.enable_progress_bar=false", "--checkpoint.every_n_train_steps=1",
]  # fmt: skip


def write_inputs(folder: Path) -> None:
    """Write a tiny model with a tokenizer, and a file of conversations."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<pad>", "<end>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="<end>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(vocabulary), pad_token_id=1, bos_token_id=None, eos_token_id=2, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    rows = [{"prompt": f"{a} {b}", "completion": f"{b} {a}"} for a in WORDS[:6] for b in WORDS[6:12]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def exit_codes(folder: Path, run: int) -> list[int]:
    """Return the exit code of each process of one fit; a failure's last lines go to stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= JOB | {"MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", "graspl", *FIT, f"--trainer.default_root_dir=run-{run}"]
    logs, started = [folder / f"run-{run}-{task}.log" for task in range(PROCESSES)], []
    for task, log in enumerate(logs):
        with log.open("w") as file:
            ours = environment | {"SLURM_PROCID": str(task), "SLURM_NODEID": str(task)}
            started.append(
                subprocess.Popen(command, cwd=folder, env=ours, stdout=file, stderr=subprocess.STDOUT)
            )
    try:
        codes = [process.wait(timeout=LIMIT) for process in started]
    finally:
        for process in started:
            process.kill()
    for code, log in zip(codes, logs, strict=True):
        if code:
            print(f"{log.name}: exit code {code}\n{log.read_text()[-2000:]}", file=sys.stderr)
    return codes


def described() -> dict[str, Any]:
    """Return the command, and where and when it runs."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit.stdout.strip(),
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {versions}",
        "seeds": [0],
    }


def main() -> None:
    """Start the fits one after the other, and write how each process ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, help="number of fits")
    parser.add_argument("--out", type=Path, default=Path("results/two_process_exits.json"))
    options = parser.parse_args()
    content: dict[str, Any] = described()
    with tempfile.TemporaryDirectory() as scratch:
        write_inputs(Path(scratch))
        codes = [code for run in range(options.runs) for code in exit_codes(Path(scratch), run)]
    content["figures"] = {
        "runs": options.runs,
        "processes": len(codes),
        "exit_codes": {str(code): count for code, count in sorted(Counter(codes).items())},
    }
    write_json_atomic(options.out, content)


if __name__ == "__main__":
    main()
