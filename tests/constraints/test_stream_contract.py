"""What every constraint on streams must do; a new one is added to CONSTRAINTS and gets all of these."""

import inspect

import pytest
import torch
from fits import parts
from torch import nn

import graspl.constraints
from graspl.constraints import ActivationConstraint, StreamConstraint, default_constraints
from graspl.directions import Directions, LayerDirections
from graspl.errors import GrasplError

HIDDEN, K = 16, 3


def led_back(k=K):
    return ActivationConstraint(k=k, tolerance=0.1, share=1.0, every=1)


CONSTRAINTS = [ActivationConstraint, led_back]


def basis(seed):
    return torch.linalg.qr(torch.randn(HIDDEN, K, generator=torch.Generator().manual_seed(seed)))[0]


def world(dtype=torch.float32):
    """Two layers and their directions."""
    torch.manual_seed(0)
    layers = {f"layers.{n}": nn.Linear(HIDDEN, HIDDEN, bias=False).to(dtype) for n in range(2)}
    directions = Directions(
        {}, {}, {f"layers.{n}": LayerDirections(basis(n), torch.ones(K)) for n in range(2)}
    )
    return layers, directions


def run(layers, x):
    for layer in layers.values():
        x = layer(x)
    return x


def gradients(layers, g, x):
    for layer in layers.values():
        layer.weight.grad = None
    run(layers, x).backward(g)
    return [layer.weight.grad.clone() for layer in layers.values()]


def inputs(dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, 5, HIDDEN, generator=generator).to(dtype) for _ in range(2))


def test_every_constraint_is_in_the_list():
    ours = [getattr(graspl.constraints, name) for name in graspl.constraints.__all__]
    kinds = {each for each in ours if inspect.isclass(each) and issubclass(each, StreamConstraint)}
    assert {type(kind()) for kind in parts(CONSTRAINTS)} >= kinds - {StreamConstraint}
    held = [each for each in default_constraints() if isinstance(each, StreamConstraint)]
    assert {type(each) for each in held} <= {type(kind()) for kind in parts(CONSTRAINTS)}


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_the_forward_pass_is_left_alone(kind):
    layers, directions = world()
    x, _ = inputs()
    before = run(layers, x)
    constraint = kind(k=K)
    constraint.attach(layers, directions)
    assert torch.equal(run(layers, x), before)


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_nothing_comes_back_along_the_directions_and_the_rest_does(kind):
    layers, directions = world()
    x, g = inputs()
    free = gradients(layers, g, x)
    constraint = kind(k=K)
    constraint.attach(layers, directions)
    cut = gradients(layers, g, x)
    last, D = cut[1], directions.layers["layers.1"].D
    assert (D.mT @ last).norm() <= 1e-5 * last.norm()
    assert (D.mT @ free[1]).norm() > 0.1 * free[1].norm()  # positive control
    torch.testing.assert_close(
        last, free[1] - D @ (D.mT @ free[1]), rtol=0, atol=float(1e-5 * free[1].norm())
    )
    assert last.norm() <= free[1].norm()
    # What is orthogonal already passes as it is
    orthogonal = g - (g @ D) @ D.mT
    torch.testing.assert_close(
        gradients(layers, orthogonal, x)[1], last, rtol=0, atol=float(1e-5 * last.norm())
    )


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_stay(kind, dtype):
    layers, directions = world(dtype)
    x, g = inputs(dtype)
    kind(k=K).attach(layers, directions)
    assert all(each.dtype == dtype and torch.isfinite(each).all() for each in gradients(layers, g, x))


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_it_can_be_suspended_and_taken_off(kind):
    layers, directions = world()
    x, g = inputs()
    free = gradients(layers, g, x)
    constraint = kind(k=K)
    constraint.attach(layers, directions)
    with constraint.suspended():
        assert all(map(torch.equal, gradients(layers, g, x), free))
    assert not torch.equal(gradients(layers, g, x)[1], free[1])
    constraint.attach(layers, directions)  # once more is once
    constraint.detach()
    assert all(map(torch.equal, gradients(layers, g, x), free))


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_layers_without_directions_are_left_alone(kind):
    layers, directions = world()
    x, g = inputs()
    free = gradients(layers, g, x)
    some = Directions({}, {"some_layers": "true"}, {"layers.0": directions.layers["layers.0"]})
    kind(k=K).attach(layers, some)
    cut = gradients(layers, g, x)
    assert torch.equal(cut[1], free[1])
    assert not torch.equal(cut[0], free[0])


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_more_directions_than_the_file_holds_are_refused(kind):
    layers, directions = world()
    with pytest.raises(GrasplError, match=f"has {K}, the constraint wants k = {K + 1}"):
        kind(k=K + 1).attach(layers, directions)


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_a_penalty_is_given_once_and_only_where_a_batch_is_needed(kind):
    layers, directions = world()
    x, _ = inputs()
    constraint = kind(k=K)
    constraint.attach(layers, directions)
    batch = {"labels": torch.ones(2, 5, dtype=torch.long)}

    def base(_):
        with torch.no_grad():
            run(layers, 0.9 * x)

    constraint.observe(batch, 0, base)
    run(layers, x)
    found = constraint.penalty()
    assert (found is not None) == constraint.needs_batch
    assert found is None or found > 0
    run(layers, x)
    assert constraint.penalty() is None
