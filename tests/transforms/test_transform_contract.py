"""What every transform must do; a new one is added to TRANSFORMS and gets all of these."""

import pytest
import torch
from conftest import make_model
from fits import every_factor, kinds_of, parts, same

import graspl.transforms
from graspl.constraints import WriteConstraint
from graspl.methods.state import finished_factors
from graspl.transforms import Balance, SafeLoRA, Scale, Subtract, Transform, Truncate

UNALIGNED = "unaligned"
TRANSFORMS = [
    Scale,
    lambda: Balance(share=0.5),
    lambda: Truncate(keep=1),
    lambda: Truncate(keep=1, part="tail"),
    lambda: SafeLoRA(unaligned_model=UNALIGNED, threshold=1.01),
    lambda: Subtract(constraint=WriteConstraint()),
]


@pytest.fixture
def finished(part_fit, random_directions, tmp_path, monkeypatch):
    """Return a function that fits with transforms."""
    other = make_model("llama")
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    other.save_pretrained(tmp_path / UNALIGNED)
    monkeypatch.chdir(tmp_path)

    def run(*transforms):
        given = {"directions": random_directions} if any(each.needs_directions for each in transforms) else {}
        return part_fit(transforms=list(transforms), **given)

    return run


def test_every_transform_is_in_the_list():
    assert {type(make()) for make in parts(TRANSFORMS)} >= kinds_of(graspl.transforms, Transform)


@pytest.mark.parametrize("make", parts(TRANSFORMS))
def test_training_never_sees_it_and_what_is_saved_is_changed(make, finished):
    naive, module = finished(), finished(make())
    assert same(every_factor(module), every_factor(naive))
    saved, plain = finished_factors(module), finished_factors(naive)
    assert not same(saved.values(), plain.values())
    assert all(torch.isfinite(each).all() for each in saved.values())
    # Saving puts the trained factors back
    assert same(every_factor(module), every_factor(naive))


@pytest.mark.parametrize("make", parts(TRANSFORMS))
def test_two_transforms_are_applied_in_order(make, finished):
    module = finished(make(), Scale(share=0.25))
    once, both = finished_factors(finished(make())), finished_factors(module)
    for name, value in both.items():
        torch.testing.assert_close(value, once[name] * (0.25 if "lora_B" in name else 1.0))


@pytest.mark.parametrize("make", parts(TRANSFORMS))
def test_an_untrained_adapter_stays_finite(make, finished):
    module = finished(make())
    with torch.no_grad():
        for site in module.sites:
            site.B.zero_()
    assert all(torch.isfinite(each).all() for each in finished_factors(module).values())
