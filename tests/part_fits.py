"""A short real fit with any parts, for the contracts of the parts."""

import inspect
import warnings

import pytest
import torch
from conftest import CHAT_ROWS
from lightning import Trainer, seed_everything

from graspl.adapters import LoraOptions, layer_names
from graspl.data import ChatDataModule
from graspl.directions import Directions, LayerDirections, SiteDirections
from graspl.methods import LoRALitModule

R = 4


def adamw(params):
    return torch.optim.AdamW(params, lr=1e-2)


@pytest.fixture
def fit(model_folder, write_rows, tmp_path):
    """Return a function that fits a tiny model with the parts given, and returns the module."""
    rows = str(write_rows(CHAT_ROWS))
    base = str(model_folder("llama"))

    def run(*, kind=LoRALitModule, max_steps=3, **parts):
        seed_everything(0, verbose=False)
        options = {"lora": LoraOptions(r=R, lora_alpha=8), "optimizer": adamw} | parts
        module = kind(base_model=base, **options)
        data = ChatDataModule(train=rows, text=rows, base_model=base, batch_size=4, group_by_length=False)
        quiet = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        trainer = Trainer(
            accelerator="cpu", max_steps=max_steps, default_root_dir=tmp_path, limit_val_batches=0, **quiet
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers")
            warnings.filterwarnings("ignore", ".*LeafSpec")
            trainer.fit(module, data)
        return module

    return run


@pytest.fixture
def directions_file(fit, tmp_path):
    """Return a file with random directions, with a sign, of every site and layer of the tiny model."""
    generator = torch.Generator().manual_seed(3)

    def basis(rows):
        return torch.linalg.qr(torch.randn(rows, R, generator=generator))[0]

    sites = fit(max_steps=1).sites
    found = Directions(
        {
            site.name: SiteDirections(basis(site.shape[0]), torch.ones(R), basis(site.shape[1]))
            for site in sites
        },
        {"identification": "Random", "signed": "true", "filters": "false"},
        {name: LayerDirections(basis(32), torch.ones(R)) for name in layer_names(sites)},
    )
    found.save(tmp_path / "directions.safetensors")
    return str(tmp_path / "directions.safetensors")


def factors(module):
    """Return every factor of a module, A and B in turn."""
    return [p.detach().clone() for site in module.sites for p in (site.A, site.B)]


def same(ours, theirs):
    """Return whether two lists of tensors are equal, bit for bit."""
    return all(map(torch.equal, ours, theirs))


def kinds_of(room, base):
    """Return the classes that a room exports and that derive from a base."""
    every = [getattr(room, name) for name in room.__all__]
    return {each for each in every if inspect.isclass(each) and issubclass(each, base) and each is not base}


def hooks_of(module):
    """Return the number of forward hooks on a module's model."""
    return sum(len(each._forward_hooks) for each in module.model.modules())
