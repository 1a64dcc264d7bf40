"""Short real fits on a tiny model, for tests of methods and of their parts; the fixtures are in conftest.py."""

import inspect
import warnings
from importlib import import_module

import torch
from lightning import Trainer, seed_everything

from graspl.adapters.loss import answer_logits
from graspl.data import ChatDataModule
from graspl.methods.state import finished_factors, write_peft_folder

RANK = 4
"""Of the adapters of `part_fit`, and directions a site and layer of `random_directions`."""


def train(module, *, rows, folder, data=None, lightning=None):
    """Fit a module on rows, quietly, and return its trainer."""
    datamodule = ChatDataModule(train=str(rows), base_model=module.base_model, **data or {})
    settings = {
        "accelerator": "cpu", "max_steps": 3, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder, "limit_val_batches": 0,
    }  # fmt: skip
    lightning = dict(lightning or {})
    resume = {"ckpt_path": lightning.pop("ckpt_path", None)}
    trainer = Trainer(**settings | lightning)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", ".*LeafSpec")
        trainer.fit(module, datamodule, **resume)
    return trainer


def factors(module):
    """Return a copy of everything that a module trains, in one vector."""
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad]).clone()


def start(module):
    """Return the adapter as it was before the first step: A as drawn, B zero."""
    seed_everything(0, verbose=False)
    fresh = type(module)(base_model=module.base_model)
    fresh.configure_model()
    return factors(fresh)


def sgd(params):
    return torch.optim.SGD(params, lr=0.5)


def adam(params):
    return torch.optim.AdamW(params, lr=1e-2)


def save(module, folder):
    """Write a module's finished adapter in PEFT format, and return the folder."""
    write_peft_folder(module, folder, finished_factors(module))
    return folder


def batch_of(trainer):
    """Return the first batch of a fit."""
    return next(iter(trainer.datamodule.train_dataloader()))


def gradients(module, loss):
    """Return the gradient of a loss in everything that a module trains, in one vector."""
    module.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.requires_grad])


def attached(module):
    """Attach a fitted module's edits again, which the end of the fit took off; close them with `module.attached.detach`."""
    module.attached.attach(module.model, module.directions_in_use)
    return module.attached


def answers_of(module, batch):
    """Return the logits that predict a batch's answer tokens, as penalties are given them."""
    return answer_logits(module.model, module, batch)


def weighed(module, batch, logits):
    """Return what a module's penalties add to the mean loss of a batch."""
    for each in module.penalties:
        each.begin(module)
    return sum(each.weight * each.term(module, batch, logits) for each in module.penalties)


def every_factor(module):
    """Return a copy of every factor of a module, trained or not, A and B in turn."""
    return [p.detach().clone() for site in module.sites for p in (site.A, site.B)]


def same(ours, theirs):
    """Return whether two lists of tensors are equal, bit for bit."""
    return all(map(torch.equal, ours, theirs))


def parts(listed):
    """Return what makes each part of a contract's list; a part of your own may stand there as a class path."""
    return [_imported(each) if isinstance(each, str) else each for each in listed]


def _imported(path):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def kinds_of(room, base):
    """Return the classes that a room exports and that derive from a base."""
    every = [getattr(room, name) for name in room.__all__]
    return {each for each in every if inspect.isclass(each) and issubclass(each, base) and each is not base}


def hooks_of(module):
    """Return the number of forward hooks on a module's model."""
    return sum(len(each._forward_hooks) for each in module.model.modules())
