"""Constraints on the residual stream: what is held, and what the backward pass brings."""

import pytest
import torch
from conftest import make_model
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from graspl.adapters import Site, decoder_layers, lora_sites, write_reliance, writers_by_layer
from graspl.adapters.answers import answer_places
from graspl.adapters.streams import edit_streams
from graspl.constraints import ActivationConstraint, Held, ResidualConstraint, WriteConstraint
from graspl.directions import Directions, LayerDirections
from graspl.errors import GrasplError

HIDDEN = 32


def orthonormal(k, seed, hidden=HIDDEN):
    return torch.linalg.qr(torch.randn(hidden, k, generator=torch.Generator().manual_seed(seed)))[0]


def layers_of(count=2, k=2, hidden=HIDDEN, seed=0):
    return Directions(
        {},
        {},
        {
            f"model.layers.{n}": LayerDirections(orthonormal(k, seed + n, hidden), torch.ones(k))
            for n in range(count)
        },
    )


def adapted(seed=0, **lora):
    torch.manual_seed(seed)
    options = {"r": 3, "target_modules": "all-linear", "lora_dropout": 0.0} | lora
    model = get_peft_model(make_model("llama"), LoraConfig(**options))
    return model, lora_sites(model)


def batch(seed=0):
    ids = torch.randint(6, 30, (3, 9), generator=torch.Generator().manual_seed(seed))
    labels = ids.clone()
    labels[:, :4] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def loss_of(model, given):
    return model(**given, use_cache=False).loss


def base_forward(model):
    """How the base model runs on a batch."""

    def base(each):
        # The loss that a model computes itself would want all logits
        with torch.no_grad(), model.disable_adapter():
            return model(**{name: value for name, value in each.items() if name != "labels"}, use_cache=False)

    return base


def attached(constraint, model, directions):
    constraint.attach(decoder_layers(model), directions)
    return constraint


# Residual


@given(seed=st.integers(0, 2**31), r=st.integers(1, 6), k=st.integers(1, 3), out=st.integers(8, 24))
def test_a_residual_step_leaves_nothing_along_the_layers_directions(seed, r, k, out):
    generator = torch.Generator().manual_seed(seed)
    sites = []
    for layer in range(3):
        for name, shape in (
            ("self_attn.o_proj", (out, 7)),
            ("mlp.down_proj", (out, 9)),
            ("mlp.up_proj", (9, out)),
        ):
            A = nn.Parameter(torch.randn(r, shape[1], generator=generator))
            sites.append(Site(f"model.layers.{layer}.{name}", A, nn.Parameter(torch.zeros(shape[0], r)), 2.0))
    directions = layers_of(3, k, out, seed % 1000)
    constraint = ResidualConstraint(k=k, read=True)
    constraint.bind(sites, directions)
    with torch.no_grad():  # wherever an optimizer went
        for site in sites:
            site.A.copy_(torch.randn(site.A.shape, generator=generator))
            site.B.copy_(torch.randn(site.B.shape, generator=generator))
    constraint.project_step(sites)
    for number, writers in enumerate(writers_by_layer(sites).values()):
        D = list(directions.layers.values())[number].D
        for site in writers:
            assert (D.mT @ site.B).norm() <= 1e-4 * (1 + site.B.norm())
    for number, before in enumerate(list(directions.layers.values())[:-1], start=1):
        reader = next(site for site in sites if site.name == f"model.layers.{number}.mlp.up_proj")
        assert (reader.A @ before.D).norm() <= 1e-4 * (1 + reader.A.norm())


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor])
def test_a_residual_constraint_holds_through_training(optimizer):
    model, sites = adapted()
    directions = layers_of()
    free = write_reliance_after(model, sites, directions, optimizer, None)
    model, sites = adapted()
    held = write_reliance_after(model, sites, directions, optimizer, ResidualConstraint(k=2))
    assert max(held) <= 1e-5
    assert min(free) > 1e-2  # positive control


def write_reliance_after(model, sites, directions, optimizer, constraint):
    stepper = optimizer([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    if constraint is not None:
        constraint.bind(sites, directions)
    for step in range(4):
        stepper.zero_grad()
        loss_of(model, batch(step)).backward()
        if constraint is not None:
            constraint.project_gradients(sites)
        stepper.step()
        if constraint is not None:
            constraint.project_step(sites)
    return [
        write_reliance(site.B.detach(), site.A.detach(), directions.layers[layer].D)
        for layer, writers in writers_by_layer(sites).items()
        for site in writers
    ]


def test_a_residual_constraint_needs_sites_that_write():
    _, sites = adapted(target_modules=["q_proj", "up_proj"])
    with pytest.raises(GrasplError, match="target o_proj and down_proj"):
        ResidualConstraint(k=1).bind(sites, layers_of())
    _, sites = adapted()
    with pytest.raises(GrasplError, match="16 wide"):
        ResidualConstraint(k=1).bind(sites, layers_of(hidden=16))


# Activation


def gradients(model, given):
    model.zero_grad()
    loss_of(model, given).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_cut_leaves_the_forward_pass_alone():
    model, _ = adapted()
    before = loss_of(model, batch())
    attached(ActivationConstraint(k=2), model, layers_of())
    assert torch.equal(loss_of(model, batch()), before)


def test_the_cut_equals_a_hand_written_backward_pass():
    """The gradient behind a layer is g - D (D^T g), which a network of one linear layer shows in closed form."""
    layer = nn.Linear(HIDDEN, HIDDEN, bias=False)
    D = orthonormal(3, 5)
    constraint = ActivationConstraint(k=3)
    constraint.attach({"layer": layer}, Directions({}, {}, {"layer": LayerDirections(D, torch.ones(3))}))
    x, g = torch.randn(4, HIDDEN), torch.randn(4, HIDDEN)
    layer(x).backward(g)
    torch.testing.assert_close(layer.weight.grad, (g - (g @ D) @ D.mT).mT @ x)
    constraint.detach()
    layer.weight.grad = None
    layer(x).backward(g)
    torch.testing.assert_close(layer.weight.grad, g.mT @ x)


def test_nothing_below_is_pushed_along_the_directions():
    """With every direction held nothing reaches the adapter but through the last norm, which is behind no layer."""
    model, _ = adapted()
    free = gradients(model, batch())
    every = Directions(
        {},
        {},
        {f"model.layers.{n}": LayerDirections(torch.eye(HIDDEN), torch.ones(HIDDEN)) for n in range(2)},
    )
    constraint = attached(ActivationConstraint(k=HIDDEN), model, every)
    cut = gradients(model, batch())
    assert max(float(g.norm()) for g in free.values()) > 1e-3
    assert max(float(g.norm()) for g in cut.values()) <= 1e-6
    constraint.detach()
    again = gradients(model, batch())
    assert all(torch.equal(again[name], free[name]) for name in free)


def test_the_cut_works_under_gradient_checkpointing_and_in_half_precision():
    model, _ = adapted()
    attached(ActivationConstraint(k=2), model, layers_of())
    plain = gradients(model, batch())
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model.train()
    checkpointed = gradients(model, batch())
    for name, g in plain.items():
        torch.testing.assert_close(checkpointed[name], g, rtol=1e-4, atol=1e-6)
    half, _ = adapted()
    half.get_base_model().to(torch.bfloat16)
    attached(ActivationConstraint(k=2), half, layers_of())
    assert all(torch.isfinite(g).all() for g in gradients(half, batch()).values())


# Activation, led back


def held_gradients(model, constraint, given, scale=1.0):
    """Gradients of the penalty alone, `scale` times."""
    model.zero_grad()
    constraint.observe(given, 0, base_forward(model))
    loss_of(model, given)
    (scale * constraint.penalty()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def perturbed():
    model, sites = adapted()
    with torch.no_grad():
        for site in sites:
            site.B.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return model, sites


def test_the_penalty_is_the_drift_along_the_directions_relative_to_the_base_model():
    model, _ = perturbed()
    constraint = attached(ActivationConstraint(k=2, tolerance=0.1, share=1.0, every=3), model, layers_of())
    given = batch()
    constraint.observe(given, 0, base_forward(model))
    loss_of(model, given)
    penalty = constraint.penalty()
    constraint.detach()
    streams = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: streams.append(out.detach()))
        for layer in decoder_layers(model).values()
    ]
    model(**given, use_cache=False)
    base_forward(model)(given)
    for hook in hooks:
        hook.remove()
    mask = torch.zeros_like(given["labels"], dtype=torch.bool)
    mask[:, :-1] = given["labels"][:, 1:] != -100
    drifts = [
        ((r - r0)[mask] @ layer.D).square().sum() / (r0[mask] @ layer.D).square().sum()
        for r, r0, layer in zip(streams[:2], streams[2:], layers_of().layers.values(), strict=True)
    ]
    torch.testing.assert_close(penalty.detach(), 3 * sum(drifts) / 2 / 0.1**2, rtol=1e-4, atol=0)
    assert constraint.penalty() is None  # each is given once
    constraint.attach(decoder_layers(model), layers_of())
    constraint.observe(given, 4, base_forward(model))  # steps 0, 3, 6 ... are measured
    loss_of(model, given)
    assert constraint.penalty() is None


def test_the_penalty_is_zero_at_the_start_and_leads_back_from_elsewhere():
    model, _ = adapted()
    constraint = attached(ActivationConstraint(k=2, tolerance=0.1), model, layers_of())
    constraint.observe(batch(), 0, base_forward(model))
    loss_of(model, batch())
    assert constraint.penalty().item() <= 1e-9  # B = 0
    model, _ = perturbed()
    constraint = attached(ActivationConstraint(k=2, tolerance=0.1), model, layers_of())
    found = []
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        constraint.observe(batch(), 0, base_forward(model))
        loss_of(model, batch())
        found.append(constraint.penalty())
        found[-1].backward()
        optimizer.step()
    assert found[-1] < 0.2 * found[0]


def test_what_leads_back_passes_the_layers_own_cut():
    """With every direction held the loss brings no gradient at all, but the penalty does."""
    every = Directions(
        {},
        {},
        {f"model.layers.{n}": LayerDirections(torch.eye(HIDDEN), torch.ones(HIDDEN)) for n in range(2)},
    )
    model, _ = perturbed()
    constraint = attached(ActivationConstraint(k=HIDDEN, tolerance=1.0), model, every)
    assert max(float(g.norm()) for g in gradients(model, batch()).values()) <= 1e-6
    assert max(float(g.norm()) for g in held_gradients(model, constraint, batch()).values()) > 1e-3


def test_leading_back_works_under_gradient_checkpointing_and_in_half_precision():
    model, _ = perturbed()
    constraint = attached(ActivationConstraint(k=2, tolerance=0.1), model, layers_of())
    plain = held_gradients(model, constraint, batch())
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model.train()
    for name, g in held_gradients(model, constraint, batch()).items():
        torch.testing.assert_close(g, plain[name], rtol=1e-4, atol=1e-6)
    half, _ = perturbed()
    half.get_base_model().to(torch.bfloat16)
    constraint = attached(ActivationConstraint(k=2, tolerance=0.1), half, layers_of())
    assert all(torch.isfinite(g).all() for g in held_gradients(half, constraint, batch()).values())


def test_a_batch_without_answers_asks_for_nothing():
    model, _ = perturbed()
    constraint = attached(ActivationConstraint(k=2, tolerance=0.1), model, layers_of())
    given = batch()
    given["labels"][:] = -100
    constraint.observe(given, 0, base_forward(model))
    model(**given, use_cache=False)
    assert constraint.penalty().item() == 0
    assert attached(ActivationConstraint(k=2), model, layers_of()).penalty() is None


def test_filters_are_warned_of(caplog):
    model, _ = adapted()
    for filters in ("true", "false"):
        caplog.clear()
        attached(ActivationConstraint(k=2), model, Directions({}, {"filters": filters}, layers_of().layers))
        assert ("Use NaturalDirections" in caplog.text) == (filters == "true")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"tolerance": 0.0}, "not above 0"), ({"share": 1.5}, "at most 1"), ({"every": 0}, "below 1")],
)
def test_bad_settings_are_refused(arguments, words):
    with pytest.raises(GrasplError, match=words):
        ActivationConstraint(**arguments)


# Jacobian: Eq. 9 of the paper with h the mean projected activation, as a reference


def held_h(model, given, directions):
    """h_l = E D_l^T r_l over the places that predict answers, (k L,), with its graph."""
    streams = {}
    with edit_streams(decoder_layers(model), lambda name, r: streams.__setitem__(name, r)):
        model(**given, use_cache=False)
    places = answer_places(given["labels"])
    return torch.cat([r[places].float().mean(0) @ directions.layers[name].D for name, r in streams.items()])


def jacobian(h, factors):
    """J = dh/dtheta, (k L, parameters), by one backward pass a row."""
    rows = []
    for each in h:
        grads = torch.autograd.grad(each, factors, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for g, p in zip(grads, factors, strict=True)
                ]
            )
        )
    return torch.stack(rows)


def trained_factors():
    model, sites = adapted()
    with torch.no_grad():
        for site in sites:
            site.B.normal_(std=0.05)
    return model, [p for site in sites for p in (site.A, site.B)]


def test_equation_nine_holds_h_to_first_order():
    model, factors = trained_factors()
    given, directions = batch(), layers_of()
    J = jacobian(held_h(model, given, directions), factors)
    loss_of(model, given).backward()
    v = torch.cat([p.grad.flatten() for p in factors])
    x = v - J.mT @ torch.linalg.solve(J @ J.mT, J @ v)
    assert (J @ v).norm() > 1e-3 * J.norm() * v.norm()  # positive control
    assert (J @ x).norm() <= 1e-4 * J.norm() * v.norm()
    free, held = (change_of_h(model, factors, given, directions, step) for step in (v, x))
    assert free > 1e-4
    assert held <= 0.02 * free


def change_of_h(model, factors, given, directions, step, size=1e-3):
    before, start = held_h(model, given, directions).detach(), [p.detach().clone() for p in factors]
    parts = (size * step / step.norm()).split([p.numel() for p in factors])
    with torch.no_grad():
        for p, part in zip(factors, parts, strict=True):
            p.sub_(part.view_as(p))
    change = float((held_h(model, given, directions).detach() - before).norm())
    with torch.no_grad():
        for p, value in zip(factors, start, strict=True):
            p.copy_(value)
    return change


# Which directions


@pytest.mark.parametrize("kind", [ActivationConstraint, ResidualConstraint])
def test_directions_that_do_not_fit_are_refused(kind):
    model, sites = adapted()
    for directions, words in (
        (Directions({}, {}, {}), "hold sites only"),
        (layers_of(3), "made for 3 layers"),
        (layers_of(k=1), "wants k = 2"),
    ):
        with pytest.raises(GrasplError, match=words):
            Held([kind(k=2)]).bind(sites, decoder_layers(model), directions)
    with pytest.raises(GrasplError, match="hold layers only"):
        WriteConstraint(k=1).bind(sites, layers_of())


def test_constraints_held_together_each_act():
    model, sites = adapted()
    free = gradients(model, batch())
    both = Held([ActivationConstraint(k=2, tolerance=0.1), ResidualConstraint(k=2)])
    both.bind(sites, decoder_layers(model), layers_of())
    both.observe(batch(), 0, base_forward(model))
    assert any(not torch.allclose(g, free[name]) for name, g in gradients(model, batch()).items())
    assert both.penalty() is not None
    with both.suspended():
        assert all(torch.allclose(g, free[name]) for name, g in gradients(model, batch()).items())
    both.project_gradients(sites)
    both.project_step(sites)
    for layer, writers in writers_by_layer(sites).items():
        for site in writers:
            assert (layers_of().layers[layer].D.mT @ site.B.grad).norm() <= 1e-6
    both.release()
    again = gradients(model, batch())
    assert all(torch.allclose(again[name], free[name]) for name in free)
