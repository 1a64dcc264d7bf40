"""What the algebra of `NullSpaceStart` costs at the shapes of a 7B model: `python benchmarks/null_space_cost.py`.

Writes results/null_space_cost.json: seconds for all sites of one layer, by kind, and the memory at its peak. The numbers are
random; the shapes are those of Qwen2.5-7B (hidden 3,584; 18,944 between the layers' up- and down-projections).
"""

import argparse
import platform
import resource
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from graspl.runs import write_json_atomic
from graspl.starts import NullSpaceStart
from graspl.starts.bases import inputs_of
from graspl.starts.moments import Moments

HIDDEN, BETWEEN, KEYS, RANK = 3584, 18944, 512, 32
# By name: outputs, inputs, and what is read there; sites that read the same are solved once, unless their gradients differ
SITES = {
    "q": (HIDDEN, HIDDEN, "attention"),
    "k": (KEYS, HIDDEN, "attention"),
    "v": (KEYS, HIDDEN, "attention"),
    "o": (HIDDEN, HIDDEN, "heads"),
    "gate": (BETWEEN, HIDDEN, "mlp"),
    "up": (BETWEEN, HIDDEN, "mlp"),
    "down": (HIDDEN, BETWEEN, "between"),
}


def read(size: int, start: NullSpaceStart) -> tuple[Moments, Moments]:
    """Return made-up moments of the task and of general text for a site with so many inputs."""
    sides = []
    for scale in (1.0, 0.5):
        # The most that a sample may have: twice `tokens`, of all tokens and of those where answers begin
        tokens = torch.randn(4 * start.tokens if size > start.widest else 2 * size, size) * scale
        whole = (tokens.mT @ tokens).double() / len(tokens)
        sides.append(Moments(sample=tokens) if size > start.widest else Moments(whole=whole))
        del whole
    return sides[0], sides[1]


def seconds(kind: str) -> dict[str, float]:
    """Return the time that each solution takes."""
    start, known, taken = NullSpaceStart(kind=kind), {}, {}  # type: ignore[arg-type]
    for name, (out, size, what) in SITES.items():
        if kind == "contrastive" and what in known:
            continue
        if what not in known:
            known = {what: read(size, start)}
        G = torch.randn(out, size) if kind == "gradient" else None
        began = time.monotonic()
        found = inputs_of(kind, *known[what], G, RANK, start.ridge)  # type: ignore[arg-type]
        taken[name] = round(time.monotonic() - began, 1)
        assert found.shape == (size, RANK)
        print(kind, name, taken[name], flush=True)
    return taken


def main() -> None:
    """Measure one kind a process, since the peak of the memory is the process's."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kinds", nargs="+", default=["contrastive", "gradient"], help="of NullSpaceStart")
    parser.add_argument(
        "--out", type=Path, default=Path("results/null_space_cost.json"), help="file to write"
    )
    options = parser.parse_args()
    figures = {}
    for kind in options.kinds:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        each = seconds(kind)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures[kind] = {
            "seconds for one layer": round(sum(each.values()), 1),
            "GiB at the peak": round(peak / 2**20, 1),
            "GiB before": round(before / 2**20, 1),
            "by site": each,
        }
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    record = {
        "command": "python benchmarks/null_space_cost.py",
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "seeds": [],
        "figures": figures,
    }
    write_json_atomic(options.out, record)


if __name__ == "__main__":
    main()
