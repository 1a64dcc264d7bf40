"""What every stream edit must do; a new one is added to EDITS and gets all of these."""

import pytest
import torch
from conftest import make_model
from fits import every_factor, hooks_of, kinds_of, parts, same
from peft import LoraConfig, get_peft_model

import graspl.edits
from graspl.directions import Directions, LayerDirections
from graspl.edits import Ablate, AttachedEdits, Cut, Push, StreamEdit
from graspl.errors import GrasplError

EDITS = [
    Ablate,
    Cut,
    Push,
    lambda: Ablate(backward=False),
    lambda: Ablate(during="both"),
    lambda: Ablate(k=2),
]
AT_INFERENCE = [lambda: Ablate(during="inference"), lambda: Push(strength=-0.1, during="inference")]


def adapted():
    torch.manual_seed(0)
    model = get_peft_model(make_model("llama"), LoraConfig(r=3, target_modules="all-linear"))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    return model.train()


def directions(signed="true", layers=2):
    generator = torch.Generator().manual_seed(1)
    bases = [torch.linalg.qr(torch.randn(32, 3, generator=generator))[0] for _ in range(layers)]
    return Directions(
        {},
        {"signed": signed},
        {f"model.layers.{n}": LayerDirections(D, torch.ones(3)) for n, D in enumerate(bases)},
    )


def logits(model):
    ids = torch.arange(6, 24).view(2, 9)
    return model(input_ids=ids, use_cache=False).logits


def gradient(model):
    model.zero_grad()
    logits(model).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_every_edit_is_in_the_list():
    assert {type(make()) for make in parts(EDITS)} >= kinds_of(graspl.edits, StreamEdit)


@pytest.mark.parametrize("make", parts(EDITS))
def test_it_acts_while_training_and_can_be_switched_off_and_taken_off(make):
    model = adapted()
    before, plain = logits(model), gradient(model)
    attached = AttachedEdits([make()])
    attached.attach(model, directions())
    assert not torch.equal(gradient(model), plain)
    with attached.off():
        assert torch.equal(logits(model), before)
        assert torch.equal(gradient(model), plain)
    attached.detach()
    assert torch.equal(gradient(model), plain)


@pytest.mark.parametrize("make", parts(EDITS))
def test_passes_without_gradients_are_the_base_models_and_left_alone(make):
    model = adapted()
    with torch.no_grad():
        before = logits(model)
        AttachedEdits([make()]).attach(model, directions())
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize("make", AT_INFERENCE)
def test_at_inference_it_leaves_training_alone(make):
    model = adapted()
    plain = gradient(model)
    AttachedEdits([make()]).attach(model, directions())
    assert torch.equal(gradient(model), plain)
    model.eval()
    before = logits(adapted().eval())
    assert not torch.equal(logits(model), before)


@pytest.mark.parametrize("make", [*parts(EDITS), *AT_INFERENCE])
def test_shape_and_dtype_stay(make):
    edit, D = make(), torch.linalg.qr(torch.randn(8, 2))[0]
    for dtype in (torch.float32, torch.bfloat16):
        stream = torch.randn(2, 3, 8, dtype=dtype, requires_grad=True)
        changed = edit.changed(stream, D)
        assert changed.shape == stream.shape
        assert changed.dtype == dtype


@pytest.mark.parametrize("make", [*parts(EDITS), *AT_INFERENCE])
def test_directions_that_do_not_fit_are_refused(make):
    model, edit = adapted(), make()
    with pytest.raises(GrasplError, match="made for 3 layers"):
        AttachedEdits([edit]).attach(model, directions(layers=3))
    if edit.needs_sign:
        with pytest.raises(GrasplError, match="without a sign"):
            AttachedEdits([edit]).attach(model, directions(signed="false"))


@pytest.mark.parametrize("make", parts(EDITS))
def test_a_fit_with_it_differs_from_a_naive_one_and_leaves_no_hooks(make, part_fit, random_directions):
    naive, edited = part_fit(), part_fit(edits=[make()], directions=random_directions)
    assert not same(every_factor(edited), every_factor(naive))
    assert hooks_of(edited) == hooks_of(naive)


@pytest.mark.parametrize("make", AT_INFERENCE)
def test_a_fit_with_an_edit_at_inference_is_naive(make, part_fit, random_directions):
    assert same(
        every_factor(part_fit(edits=[make()], directions=random_directions)), every_factor(part_fit())
    )
