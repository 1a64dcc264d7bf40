"""One process of a loop that is not graspl's: a bare one under DDP or FSDP2, whose adapter `HeldAdapter` holds."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import get_peft_model
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM

from graspl import HeldAdapter
from graspl.adapters import LoraOptions, decoder_layers
from graspl.adapters.sharding import shard_layers, whole
from graspl.constraints import (
    ActivationConstraint,
    PairConstraint,
    ReadConstraint,
    ResidualConstraint,
    WriteConstraint,
)
from graspl.directions import Directions, LayerDirections, SiteDirections

STEPS, ROWS, LENGTH, K = 6, 4, 12, 2
KINDS = {
    "naive": None,
    "write": [WriteConstraint(k=K)],
    "read": [ReadConstraint(k=K)],
    "pair": [PairConstraint(k=K)],
    "default": [ActivationConstraint(k=K), ResidualConstraint(k=K)],
}


def directions_of(model):
    """Return random directions of every site and layer, the same in every process."""
    from graspl.adapters import lora_sites

    generator = torch.Generator().manual_seed(1)
    basis = lambda size: torch.linalg.qr(torch.randn(size, K, generator=generator))[0].contiguous()  # noqa: E731
    sites = {
        site.name: SiteDirections(basis(site.shape[0]), torch.ones(K), basis(site.shape[1]))
        for site in lora_sites(model)
    }
    layers = {
        name: LayerDirections(basis(model.config.hidden_size), torch.ones(K))
        for name in decoder_layers(model)
    }
    return Directions(sites, {"base_model": model.config.name_or_path}, layers)


def train(kind, strategy, folder, rank=0, world=1):
    """Return the adapter after a few steps of a bare loop."""
    torch.manual_seed(3)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraOptions(r=4).to_peft())
    directions = directions_of(model)
    called = model
    if strategy == "ddp":
        called = DistributedDataParallel(model)
    elif strategy == "fsdp2":
        shard_layers(model, init_device_mesh("cpu", (world,)))
    held = None if KINDS[kind] is None else HeldAdapter(model, directions, KINDS[kind])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, eps=1e-5)
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        rows = torch.randint(6, 30, (ROWS, LENGTH), generator=generator)[rank::world]
        called(input_ids=rows, attention_mask=torch.ones_like(rows), labels=rows).loss.backward()
        if held is not None:
            held.project_gradients()
        optimizer.step()
        if held is not None:
            held.project_step()
        optimizer.zero_grad()
    return {name: whole(p.detach()).clone() for name, p in model.named_parameters() if p.requires_grad}


def main():
    strategy, folder, out = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for kind in KINDS:
        found = train(kind, strategy, folder, dist.get_rank(), dist.get_world_size())
        if dist.get_rank() == 0:
            save_file(found, Path(out) / f"{strategy}-{kind}.safetensors")
    dist.barrier()
    dist.destroy_process_group()
    # Threads of gloo that are still on their way out would be waited for
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
