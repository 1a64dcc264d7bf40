"""Speed of what graspl adds: `make bench` prints a table and writes bench.json.

Timings of two things that are compared come from one process, interleaved, so that a busy machine slows both alike.
"""

import argparse
import random
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import Qwen2Config, Qwen2ForCausalLM

from graspl.adapters import AdapterFolder, LoraOptions, Site, adapter_off, decoder_layers, lora_sites
from graspl.adapters.forward import model_logits
from graspl.constraints import ActivationConstraint, Held, ReadConstraint, ResidualConstraint, WriteConstraint
from graspl.directions import Directions, LayerDirections, LayerSingular, SiteDirections, TopSingular
from graspl.methods import LoRALitModule
from graspl.organism import OrganismTaskData
from graspl.runs import write_json_atomic

sys.path.append(str(Path(__file__).parent / "real"))

from record import record, this_machine

# (out, in) of the seven linear maps of a layer, as in a 7B model with grouped attention (hidden 3584, 28 layers)
LAYER_7B = {
    "self_attn.q_proj": (3584, 3584),
    "self_attn.k_proj": (512, 3584),
    "self_attn.v_proj": (512, 3584),
    "self_attn.o_proj": (3584, 3584),
    "mlp.gate_proj": (18944, 3584),
    "mlp.up_proj": (18944, 3584),
    "mlp.down_proj": (3584, 18944),
}
LAYERS_7B, RANK = 28, 32
FROZEN = "frozen_A"  # A step after a start that freezes A, as NullSpaceStart does
CONSTRAINTS = {
    "write": lambda: Held([WriteConstraint(k=1)]),
    "read": lambda: Held([ReadConstraint(k=1)]),
    "residual": lambda: Held([ResidualConstraint(k=6)]),
    "activation": lambda: Held([ActivationConstraint(k=6, tolerance=0.04)]),  # as GRASP has it by default
    "activation_cut": lambda: Held([ActivationConstraint(k=6)]),
    "default": Held,
}


LABELS = {
    FROZEN: "null space: A frozen, nothing held",
    "write": "write, k = 1",
    "read": "read, k = 1",
    "residual": "residual, k = 6",
    "activation_cut": "activation, cut alone, k = 6",
    "activation": "activation with a tolerance, k = 6",
    "default": "GRASP's constraints: the last two",
}
NOTE = (
    "A step over a naive one, of one model: lower quartiles of the process's own time, kinds in turns, drawn anew each time. "
    "The steps on the 0.5B shape are a fifteenth of those on the organism."
)


def directions_for(sites: list[Site], layers: list[str], hidden: int) -> Directions:
    """Return random directions: one per site and six per layer."""
    basis = lambda size, k: torch.linalg.qr(torch.randn(size, k))[0]  # noqa: E731
    found = {
        site.name: SiteDirections(basis(site.shape[0], 1), torch.ones(1), basis(site.shape[1], 1))
        for site in sites
    }
    return Directions(found, {}, {name: LayerDirections(basis(hidden, 6), torch.ones(6)) for name in layers})


class Steps:
    """Optimizer steps of one model, naive or under a constraint; one model serves both, so that memory is the same."""

    def __init__(self, model: Any, batch: dict[str, Any]) -> None:
        self.model, self.batch = model, batch
        self.sites, self.layers = lora_sites(model), decoder_layers(model)
        hidden = model.config.hidden_size
        self.directions = directions_for(self.sites, list(self.layers), hidden)
        self.optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
        )

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the adapted model's logits."""
        return model_logits(self.model, batch)

    @torch.no_grad()
    def base_forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the base model's logits."""
        with adapter_off(self.model):
            return model_logits(self.model, batch)

    def step(self, held: Held | None, number: int = 0) -> None:
        """Take one whole step: forward, backward, projections and optimizer."""
        self.optimizer.zero_grad()
        if held is not None:
            held.observe(self.batch, number, self.base_forward)
        logits = self.forward(self.batch)[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), self.batch["labels"][:, 1:].flatten())
        (loss if held is None else held.with_penalty(loss)).backward()
        if held is not None:
            held.project_gradients(self.sites)
        self.optimizer.step()
        if held is not None:
            held.project_step(self.sites)

    def ratios(self, constraints: dict[str, Held], repeats: int) -> dict[str, float]:
        """Return the time of a step under each constraint over a naive step, from steps of all kinds in turns.

        The price is the lower quartile of the kind's times, since other work on the machine only adds. What happens at
        every n-th step counts for an n-th.
        """
        with torch.no_grad():
            for site in self.sites:
                site.B.zero_()
        kinds: dict[tuple[str, int], Held | None] = {("naive", 0): None, (FROZEN, 0): None}
        every: dict[str, int] = {FROZEN: 1}
        for name, held in constraints.items():
            held.bind(self.sites, self.layers, self.directions)
            held.release()
            every[name] = max(getattr(part, "every", 1) for part in held.constraints)
            kinds |= {(name, number): held for number in range(min(every[name], 2))}
        taken: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
        draw = random.Random(0)
        for index in range(repeats + 2):  # the first two warm up
            # No kind is always the one after another: what a step leaves in the caches is the next one's
            for kind in draw.sample(list(kinds), len(kinds)):
                for site in self.sites:
                    site.A.requires_grad_(kind[0] != FROZEN)
                seconds = self._seconds(kinds[kind], kind[1])
                taken[kind] += [seconds] if index >= 2 else []
        price = {kind: statistics.quantiles(times, n=4)[0] for kind, times in taken.items()}
        mean = {name: (price[name, 0] + (n - 1) * price.get((name, 1), 0.0)) / n for name, n in every.items()}
        return {name: each / price["naive", 0] for name, each in mean.items()}

    def _seconds(self, held: Held | None, number: int) -> float:
        """Return a step's time on this process's clock, which other processes disturb less than the wall clock."""
        for stream in [] if held is None else held.streams:
            stream.attach(self.layers, self.directions)
        start = time.process_time()
        self.step(held, number)
        seconds = time.process_time() - start
        if held is not None:
            held.release()
        return seconds


def _seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def organism_steps() -> Steps:
    """Return steps of the organism on its task."""
    data = OrganismTaskData(base_model="organism")
    data.setup("fit")
    module = LoRALitModule(base_model="organism")
    module.configure_model()
    return Steps(module.model, next(iter(data.train_dataloader())))


def half_billion_steps() -> Steps:
    """Return steps of a random model of a 0.5B-class shape (24 layers, hidden 896, MLP 4864) on two rows of 128 tokens."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32_000, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).requires_grad_(False)
    adapted = get_peft_model(model, LoraOptions(r=32, lora_alpha=64).to_peft())
    ids = torch.randint(0, 32_000, (2, 128))
    return Steps(adapted, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})


SHAPES = {"organism": (organism_steps, 1), "0p5b": (half_billion_steps, 15)}
"""The models, and what share of the repeats is a shape's: one of the larger takes seconds a step."""


def table_of(ratios: dict[str, dict[str, float]], repeats: int) -> dict[str, Any]:
    """Return the ratios as a table for the pages, a row a kind of step."""
    columns = {"organism": "organism", "0p5b": "0.5B shape"}
    kinds = {name for found in ratios.values() for name in found}
    rows = {
        name: {"step": label} | {columns[shape]: round(found[name], 3) for shape, found in ratios.items()}
        for name, label in LABELS.items()
        if name in kinds
    }
    return {"over_naive": rows, "steps of a kind": repeats}


def extra_memory_share(steps: Steps) -> float:
    """Return the most bytes that a constraint keeps beyond adapter and directions, as a share of these."""
    given = [p for site in steps.sites for p in (site.A, site.B)] + _tensors(steps.directions)
    counted = {tensor.data_ptr() for tensor in given}
    kept = 0
    with torch.no_grad():
        for site in steps.sites:
            site.B.zero_()
    for make in CONSTRAINTS.values():
        held = make()
        held.bind(steps.sites, steps.layers, steps.directions)
        held.observe(steps.batch, 0, steps.base_forward)
        distinct = {each.data_ptr(): each.nbytes for each in _tensors(held) if each.data_ptr() not in counted}
        kept = max(kept, sum(distinct.values()))
        held.release()
    return kept / sum(tensor.nbytes for tensor in given)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return _tensors(list(value.values()))
    if isinstance(value, list | tuple):
        return [tensor for each in value for tensor in _tensors(each)]
    return _tensors(vars(value)) if type(value).__module__.startswith("graspl.") else []


def adapter_7b() -> AdapterFolder:
    """Return a rank-32 adapter of a 7B model's shape, 196 sites."""
    generator = torch.Generator().manual_seed(0)
    sites = [
        Site(
            f"model.layers.{layer}.{name}",
            torch.randn(RANK, in_, generator=generator),
            torch.randn(out, RANK, generator=generator),
            1.0,
        )
        for layer in range(LAYERS_7B)
        for name, (out, in_) in LAYER_7B.items()
    ]
    return AdapterFolder(Path("adapter"), "7b", "", sites)


def dense_seconds() -> float:
    """Return the time of dense SVDs of all 196 updates, extrapolated from one site of each shape.

    A (3584, 18944) matrix takes what its transpose takes, so the two are timed once.
    """
    generator, seconds, known = torch.Generator().manual_seed(0), 0.0, {}
    for out, in_ in LAYER_7B.values():
        shape = (max(out, in_), min(out, in_))
        if shape not in known:
            dW = torch.randn(shape[0], RANK, generator=generator) @ torch.randn(
                RANK, shape[1], generator=generator
            )
            known[shape] = _seconds(lambda dW=dW: torch.linalg.svd(dW, full_matrices=False))
        seconds += known[shape]
    return seconds * LAYERS_7B


def identification_7b() -> dict[str, float]:
    """Return time and peak memory of identification at 7B shapes: every site's, and every layer's."""
    adapter = adapter_7b()
    size = sum(p.nbytes for site in adapter.sites for p in (site.A, site.B))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = []
    sites = _seconds(lambda: kept.append(TopSingular(k=1)(adapter)))
    layers = _seconds(lambda: kept.append(LayerSingular(k=8)(adapter)))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {
        "identify_seconds_7b_shape": sites,
        "identify_layers_seconds_7b_shape": layers,
        "identify_peak_over_adapter": (size + peak) / size,
    }


def identification() -> dict[str, float]:
    """Return the figures of identification at 7B shapes, and how many times as long dense SVDs take."""
    figures = identification_7b()
    figures["identify_dense_seconds_7b_shape"] = dense_seconds()
    figures["identify_ratio_dense"] = (
        figures["identify_dense_seconds_7b_shape"] / figures["identify_seconds_7b_shape"]
    )
    return figures


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument(
        "--repeats", type=int, default=150, help="steps of each kind on the organism, a fifteenth at 0.5B"
    )
    parser.add_argument("--only", nargs="*", choices=CONSTRAINTS, help="these steps alone, and nothing else")
    parser.add_argument(
        "--results", type=Path, help="a file under results/ for the pages, with the ratios of the steps"
    )
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    options = parser.parse_args()
    torch.manual_seed(0)
    # First, while the process is small: the peak is the process's
    figures = {} if options.only else identification()
    torch.set_num_threads(1)  # those that wait for others count as busy
    names = options.only or list(CONSTRAINTS)
    ratios: dict[str, dict[str, float]] = {}
    for shape in options.shapes:
        make, share = SHAPES[shape]
        steps = make()
        ratios[shape] = steps.ratios(
            {name: CONSTRAINTS[name]() for name in names}, max(2, options.repeats // share)
        )
        if not options.only:
            figures["extra_memory_share"] = extra_memory_share(steps)
    if options.results:
        command = shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]])
        figures_of_steps = table_of(ratios, options.repeats)
        write_json_atomic(options.results, record(command, this_machine(), [0], figures_of_steps, NOTE))
    for name in (*names, FROZEN):
        figures |= {f"step_ratio_{name}_{shape}": found[name] for shape, found in ratios.items()}
        figures[f"step_ratio_{name}"] = max(found[name] for found in ratios.values())
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    write_json_atomic(options.out, figures)


if __name__ == "__main__":
    main()
