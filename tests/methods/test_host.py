"""A training step never waits for the accelerator."""

import traceback

import pytest
import torch
from conftest import CHAT_ROWS
from lightning import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from graspl.activations import NaturalDirections
from graspl.constraints import ActivationConstraint, PairConstraint, ResidualConstraint
from graspl.data import ChatDataModule
from graspl.directions import TopSingular
from graspl.methods import GRASPLitModule, LoRALitModule, ThrowAwayFit
from graspl.methods.step import StepSums

pytestmark = [  # as in the command line
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]

# To give a number to Python, or a shape that hangs on values, is to wait for all that was asked for before
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal.default")


class Waits(TorchDispatchMode):
    """Remembers who waits; what Transformers does within the model a bare loop has as well."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        indices = args[1] if name.startswith(("aten.index.", "aten.index_put")) else ()
        picks = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in indices)
        if picks or any(part in name for part in WAITING):
            frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
            caller = frames[-2]  # the last one is this method
            if "/transformers/" not in caller.filename:
                self.seen.append(f"{name} by {caller.filename}:{caller.lineno}")
        return function(*args, **(kwargs or {}))


class Watch(Callback):
    """Looks at every step but the first, in which things are made ready."""

    def __init__(self):
        self.waits, self.steps = Waits(), 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx:
            self.waits.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx:
            self.waits.__exit__(None, None, None)
            self.steps += 1


PARTS = {
    "naive": (LoRALitModule, {}),
    "grasp": (
        GRASPLitModule,
        {
            "constraints": [ActivationConstraint(k=2, tolerance=0.1, every=1), ResidualConstraint(k=2)],
            "directions": ThrowAwayFit(NaturalDirections(k=2), steps=2),
        },
    ),
    "pair": (
        GRASPLitModule,
        {"constraints": [PairConstraint(k=1)], "directions": ThrowAwayFit(TopSingular(k=1), steps=2)},
    ),
}


@pytest.fixture
def watched(model_folder, write_rows, tmp_path):
    rows = str(write_rows(CHAT_ROWS))

    def fit(method, accelerator="cpu", callbacks=()):
        base = str(model_folder())
        kind, options = PARTS[method]
        module = kind(base_model=base, **options)
        watch = Watch()
        Trainer(
            default_root_dir=tmp_path, accelerator=accelerator, devices=1, max_steps=4, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
            limit_val_batches=0,
            callbacks=[watch, *callbacks],
        ).fit(module, ChatDataModule(base_model=base, train=rows, text=rows, batch_size=4))  # fmt: skip
        assert watch.steps == 3
        return watch.waits.seen

    return fit


@pytest.mark.parametrize("method", ["naive", "grasp", "pair"])
def test_a_step_waits_for_nothing(watched, method, monkeypatch):
    # On a CPU the loss is looked at in every step, which costs nothing there
    monkeypatch.setattr(StepSums, "raise_if_bad", lambda self: None)
    assert watched(method) == []


def test_a_step_that_waits_is_noticed(watched):
    assert any("_local_scalar_dense" in each and "step.py" in each for each in watched("naive"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["naive", "grasp"])
def test_a_gpu_is_not_waited_for(watched, method):
    class Strict(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    watched(method, accelerator="gpu", callbacks=[Strict()])
