"""With its adapter off a model is its base model, whatever is going on around it."""

import pytest
import torch
from conftest import make_model
from peft import get_peft_model

from graspl.adapters import LoraOptions, adapter_off, lora_sites


@pytest.fixture
def model():
    torch.manual_seed(0)
    adapted = get_peft_model(make_model("llama"), LoraOptions(r=4).to_peft())
    for site in lora_sites(adapted):
        site.B.data.normal_()
    return adapted


def test_an_adapter_that_is_off_gives_what_peft_gives_with_it_disabled(model):
    ids = torch.arange(6, 16)[None]
    on = model(input_ids=ids).logits
    with torch.no_grad(), model.disable_adapter():
        base = model(input_ids=ids).logits
    with torch.no_grad(), adapter_off(model):
        with adapter_off(model):
            pass
        assert torch.equal(model(input_ids=ids).logits, base)  # still off after the inner block
    assert not torch.allclose(on, base)
    again = model(input_ids=ids).logits
    assert torch.equal(again, on)
    again.sum().backward()
    assert all(site.B.grad is not None for site in lora_sites(model))


def test_an_adapter_is_on_again_after_a_mistake(model):
    ids = torch.arange(6, 16)[None]
    on = model(input_ids=ids).logits
    with pytest.raises(RuntimeError), adapter_off(model):
        raise RuntimeError
    assert torch.equal(model(input_ids=ids).logits, on)
