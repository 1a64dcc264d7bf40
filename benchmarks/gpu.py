"""All figures that need a GPU: `python benchmarks/gpu.py`, in about a quarter of an hour on one device.

Writes results/gpu.json after each part, and goes on where it was stopped. Models have random weights, so that no hub is
needed; their shape is that of Qwen2.5-7B. `--shape small` tries the script itself, on any machine.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from throughput import LORA, SHAPES
from transformers import Qwen2Config

from graspl.adapters import LoraOptions
from graspl.planning import Layout, footprint, model_shape
from graspl.runs import write_json_atomic

HERE = Path(__file__).resolve().parent
ONE = ["graspl", "graspl packed", "graspl compiled", "graspl null space", "grasp default"]


def measured(shape: str, names: list[str], *options: str) -> dict[str, Any]:
    """Return what throughput.py finds: tokens a second, ratios and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "throughput.json"
        run(
            "throughput.py", "--shape", shape, "--only", *names, "--rounds", "1", "--steps", "12",
            "--out", str(out), *options,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def run(script: str, *options: str) -> None:
    """Run a benchmark in a process of its own, since memory is a process's."""
    subprocess.run([sys.executable, str(HERE / script), *options], check=True, cwd=HERE.parent)


def planned(shape: str) -> dict[str, Any]:
    """Return what `graspl plan` counts for one device, to be read beside the peak that was measured."""
    with tempfile.TemporaryDirectory() as folder:
        Qwen2Config(**SHAPES[shape], architectures=["Qwen2ForCausalLM"]).save_pretrained(folder)
        found = footprint(model_shape(folder, LoraOptions(**LORA)), Layout("single"), directions=6)
    return {"gb": {name: each / 1e9 for name, each in found._asdict().items()}}


def waits(_shape: str) -> dict[str, Any]:
    """Return how the tests ended that count waits for the device."""
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/methods/test_host.py"],
        capture_output=True, text=True, check=False, cwd=HERE.parent,
    )  # fmt: skip
    return {"exit": said.returncode, "said": said.stdout.splitlines()[-1:]}


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "steps that wait for the device": waits,
    "one device": lambda shape: measured(shape, ONE),
    "FSDP2 over one device": lambda shape: measured(shape, ["graspl", "grasp default"], "--fsdp2"),
    "plan": planned,
}


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("results/gpu.json"))
    options = parser.parse_args()
    if options.shape == "7b" and not torch.cuda.is_available():
        parser.error("no CUDA device; --shape small tries the script on this machine")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout
    record = {
        "command": "python benchmarks/gpu.py",
        "commit": commit.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "seeds": [0],
        "figures": json.loads(options.out.read_text())["figures"] if options.out.exists() else {},
    }
    for name in options.parts:
        if name not in record["figures"]:
            began = time.monotonic()
            found = PARTS[name](options.shape)
            record["figures"][name] = {**found, "seconds": round(time.monotonic() - began)}
            write_json_atomic(options.out, record)


if __name__ == "__main__":
    main()
