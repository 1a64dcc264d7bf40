"""What does not go together with FSDP1 is said before anything is computed. What does is in tests/distributed."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy

from graspl.errors import GrasplError
from graspl.methods import LoRALitModule
from graspl.methods.state import factors
from graspl.penalties import ConsistencyPenalty
from graspl.transforms import Balance
from graspl.transforms.base import frozen_weight


def under_fsdp1(*, strategy=None, **options):
    module = LoRALitModule(base_model="organism", **options)
    module._trainer = SimpleNamespace(strategy=FSDPStrategy(**(strategy or {})), precision="32-true")
    return module


def test_shards_of_a_whole_adapter_are_refused():
    with pytest.raises(GrasplError, match="state_dict_type: with FSDP1 it must be full"):
        under_fsdp1(strategy={"state_dict_type": "sharded"}).setup("fit")


def test_quantised_weights_are_refused():
    with pytest.raises(GrasplError, match="load_in_4bit: not with FSDP1"):
        under_fsdp1(load_in_4bit=True).setup("fit")


def test_a_transform_that_reads_frozen_weights_is_refused():
    module = LoRALitModule(base_model="organism", transforms=[Balance(share=0.5)])
    module.configure_model()
    assert frozen_weight(module, "model.layers.0.mlp.up_proj").dim() == 2
    module._trainer = SimpleNamespace(strategy=FSDPStrategy(), datamodule=None)
    with pytest.raises(GrasplError, match="a transform reads frozen weights"):
        module.on_fit_start()


def test_a_penalty_that_takes_two_gradients_of_one_pass_is_refused():
    with pytest.raises(GrasplError, match="ConsistencyPenalty does not work with FSDP1"):
        under_fsdp1(penalties=[ConsistencyPenalty()]).setup("fit")


def test_a_checkpoint_of_another_adapter_is_refused():
    module = LoRALitModule(base_model="organism")
    module.configure_model()
    module._trainer = SimpleNamespace(strategy=FSDPStrategy(), datamodule=None)
    state = {name: torch.ones_like(p) for name, p in module.state_dict().items()}
    module.load_state_dict(state)
    assert all(bool((p == 1).all()) for p in factors(module).values())
    name = next(iter(state))
    for odd in ({}, {name: torch.ones(1, 1)}):
        with pytest.raises(GrasplError, match=f"e.g. {name} differs"):
            module.load_state_dict({key: each for key, each in state.items() if key != name} | odd)
