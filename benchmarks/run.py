"""Speed of what graspl adds: `make bench` prints a table and writes bench.json.

Timings of two things that are compared come from one process, interleaved, so that a busy machine slows both alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from graspl import Directions, GRASPLitModule, LoRALitModule
from graspl.adapters import Site, thin_svd
from graspl.directions import SiteDirections
from graspl.organism import OrganismTaskData
from graspl.runs import write_json_atomic

# (out, in) of the seven linear maps of a layer, as in a 7B model with grouped attention (hidden 3584, 28 layers)
LAYER_7B = [(3584, 3584), (512, 3584), (512, 3584), (3584, 3584), (18944, 3584), (18944, 3584), (3584, 18944)]
LAYERS_7B, RANK = 28, 32


def training_step(module: LoRALitModule, batch: dict[str, Any]) -> Callable[[], None]:
    """Return one whole optimizer step of a module: forward, backward, hooks and optimizer."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=2e-4)
    if isinstance(module, GRASPLitModule):
        optimizer.register_step_post_hook(lambda *_: module.constraint.project_step(module.sites))

    def step() -> None:
        optimizer.zero_grad()
        logits = module(batch)[:, :-1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten()).backward()
        if isinstance(module, GRASPLitModule):
            module.constraint.project_gradients(module.sites)
        optimizer.step()

    return step


def interleaved_ratio(slow: Callable[[], None], fast: Callable[[], None], repeats: int) -> dict[str, float]:
    """Return the median of the ratios of neighbouring timings, and the median times in seconds."""
    pairs = []
    for index in range(repeats + 3):
        seconds = []
        for action in (slow, fast):
            start = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - start)
        if index >= 3:  # the first ones warm up
            pairs.append(seconds)
    return {
        "ratio": statistics.median(a / b for a, b in pairs),
        "slow": statistics.median(a for a, _ in pairs),
        "fast": statistics.median(b for _, b in pairs),
    }


def step_ratio_write(repeats: int) -> dict[str, float]:
    """Compare an exact write-constrained step with a naive one, on the organism."""
    data = OrganismTaskData()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    naive, grasp = LoRALitModule(), GRASPLitModule()
    for module in (naive, grasp):
        module.configure_model()
    found = {}
    for site in grasp.sites:
        out, in_ = site.shape
        U, V = (torch.linalg.qr(torch.randn(size, 1))[0] for size in (out, in_))
        found[site.name] = SiteDirections(U, torch.ones(1), V)
    grasp.constraint.bind(grasp.sites, Directions(found))
    return interleaved_ratio(training_step(grasp, batch), training_step(naive, batch), repeats)


def identify_seconds_7b_shape() -> float:
    """Time the decomposition of every site of a rank-32 adapter of a 7B model."""
    generator = torch.Generator().manual_seed(0)
    sites = [
        Site(
            f"{layer}.{index}",
            torch.randn(RANK, in_, generator=generator),
            torch.randn(out, RANK, generator=generator),
            1.0,
        )
        for layer in range(LAYERS_7B)
        for index, (out, in_) in enumerate(LAYER_7B)
    ]
    start = time.perf_counter()
    for site in sites:
        thin_svd(site.B, site.A, site.scaling)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.manual_seed(0)
    step = step_ratio_write(options.repeats)
    figures = {
        "step_ratio_write": step["ratio"],
        "step_seconds_naive": step["fast"],
        "step_seconds_write": step["slow"],
        "identify_seconds_7b_shape": identify_seconds_7b_shape(),
        "torch_threads": torch.get_num_threads(),
    }
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    write_json_atomic(options.out, figures)


if __name__ == "__main__":
    main()
