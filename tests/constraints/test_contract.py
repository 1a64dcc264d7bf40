"""What every constraint on factors must do; a new one is added to CONSTRAINTS and gets all of these.

Constraints on streams have their own contract in test_stream_contract.py.
"""

import inspect
from itertools import pairwise

import pytest
import torch
from fits import parts
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import graspl.constraints
from graspl.adapters import Site, layer_names, pair_reliance, read_reliance, write_reliance, writers_by_layer
from graspl.constraints import (
    FactorConstraint,
    Held,
    PairConstraint,
    ReadConstraint,
    ResidualConstraint,
    WriteConstraint,
    default_constraints,
)
from graspl.directions import Directions, LayerDirections, SiteDirections
from graspl.errors import GrasplError


def residual_and_readers(k=1):
    return ResidualConstraint(k=k, read=True)


CONSTRAINTS = [WriteConstraint, ReadConstraint, PairConstraint, ResidualConstraint, residual_and_readers]


def residual_measure(constraint, sites, d):
    """Shares of what writers write along their layer's D, and with `read` of what readers read of the layer before's."""
    layers, writers = layer_names(sites), writers_by_layer(sites)
    found = [write_reliance(site.B, site.A, d.layers[name].D) for name in layers for site in writers[name]]
    for before, name in pairwise(layers) if constraint.read else ():
        readers = [site for site in sites if site.name.startswith(name) and site not in writers[name]]
        found += [read_reliance(site.B, site.A, d.layers[before].D) for site in readers]
    return found


MEASURES = {
    WriteConstraint: lambda c, sites, d: [write_reliance(s.B, s.A, d.sites[s.name].U) for s in sites],
    ReadConstraint: lambda c, sites, d: [read_reliance(s.B, s.A, d.sites[s.name].V) for s in sites],
    PairConstraint: lambda c, sites, d: [
        pair_reliance(s.B, s.A, d.sites[s.name].U, d.sites[s.name].V) for s in sites
    ],
    ResidualConstraint: residual_measure,
}


def held_measure(constraint, sites, _):
    """What a constraint without a measure of its own says that it holds."""
    held = [(sites[each.site], each) for each in constraint.held_factors(sites, _)]
    assert held, "it holds nothing, so there is nothing to measure"
    return [
        write_reliance(s.B, s.A, each.D) if each.factor == "B" else read_reliance(s.B, s.A, each.D)
        for s, each in held
    ]


# LBFGS and SparseAdam want a closure or sparse gradients, Muon refuses what is not a hidden 2-D weight elsewhere
OPTIMIZERS = [
    name
    for name, kind in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(kind, torch.optim.Optimizer) and name not in {"Optimizer", "LBFGS", "SparseAdam"}
]


def basis(rows, k, generator, dtype=torch.float32):
    return torch.linalg.qr(torch.randn(rows, k, generator=generator, dtype=torch.float64))[0].to(dtype)


def world(seed=0, out=12, in_=9, r=3, k=2, dtype=torch.float32):
    """Two layers at the start of training (B = 0, A random), each with a writer and a reader, and directions for them."""
    generator = torch.Generator().manual_seed(seed)
    sites, directions, layers = [], {}, {}
    for layer in ("layers.0", "layers.1"):
        for name, shape in (("self_attn.o_proj", (out, in_)), ("mlp.up_proj", (in_, out))):
            A = nn.Parameter(torch.randn(r, shape[1], generator=generator).to(dtype))
            B = nn.Parameter(torch.zeros(shape[0], r, dtype=dtype))
            site = Site(f"{layer}.{name}", A, B, 2.0)
            sites.append(site)
            U, V = (basis(size, k, generator) for size in shape)
            directions[site.name] = SiteDirections(U, torch.ones(r), V)
        layers[layer] = LayerDirections(basis(out, k, generator), torch.ones(k))
    return sites, Directions(directions, {}, layers)


def reliance(constraint, sites, directions):
    return MEASURES.get(type(constraint), held_measure)(constraint, sites, directions)


def scattered(sites, seed):
    """Put the factors wherever an optimizer may have gone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (p for site in sites for p in (site.A, site.B)):
            p.copy_(torch.randn(p.shape, generator=generator))


def test_every_constraint_is_in_the_list():
    ours = [getattr(graspl.constraints, name) for name in graspl.constraints.__all__]
    kinds = {each for each in ours if inspect.isclass(each) and issubclass(each, FactorConstraint)}
    assert {type(kind()) for kind in parts(CONSTRAINTS)} >= kinds - {FactorConstraint}
    defaults = {type(each) for each in default_constraints() if isinstance(each, FactorConstraint)}
    assert defaults <= {type(kind()) for kind in parts(CONSTRAINTS)}


def loss_of(sites, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = [torch.randn(site.shape, generator=generator).to(site.B) for site in sites]
    return sum(
        ((site.scaling * site.B @ site.A - target) ** 2).sum()
        for site, target in zip(sites, targets, strict=True)
    )


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
@given(
    seed=st.integers(0, 2**31),
    out=st.integers(2, 20),
    in_=st.integers(2, 20),
    r=st.integers(1, 6),
    k=st.integers(1, 2),
)
def test_an_exact_step_keeps_h_at_zero_from_anywhere(kind, seed, out, in_, r, k):
    sites, directions = world(seed, out, in_, r, k)
    constraint = kind(k=k)
    constraint.bind(sites, directions)
    scattered(sites, seed + 1)
    before = [p.detach().norm() for site in sites for p in (site.A, site.B)]
    constraint.project_step(sites)
    # r = 1 or out = k can leave nothing of an update
    if min((site.B @ site.A).norm() for site in sites) > 1e-3:
        assert max(reliance(constraint, sites, directions)) <= 1e-4
    after = [p.detach().norm() for site in sites for p in (site.A, site.B)]
    assert all(a <= b * (1 + 1e-6) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
@given(seed=st.integers(0, 2**31))
def test_an_exact_step_is_idempotent_and_leaves_what_is_orthogonal_alone(kind, seed):
    sites, directions = world(seed)
    constraint = kind(k=2)
    constraint.bind(sites, directions)
    scattered(sites, seed + 1)
    constraint.project_step(sites)
    once = [p.detach().clone() for site in sites for p in (site.A, site.B)]
    constraint.project_step(sites)
    for p, value in zip((p for site in sites for p in (site.A, site.B)), once, strict=True):
        # Each of the at most 20 terms of a product rounds by 6e-8 of factors of size 1
        torch.testing.assert_close(p.detach(), value, rtol=0, atol=float(1e-5 * value.norm()))


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
@given(seed=st.integers(0, 2**31))
def test_projecting_gradients_is_idempotent_never_longer_and_does_not_change_h(kind, seed):
    sites, directions = world(seed)
    constraint = kind(k=2)
    constraint.bind(sites, directions)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for site in sites:
            site.B.copy_(torch.randn(site.B.shape, generator=generator))
    constraint.project_step(sites)
    loss_of(sites, seed).backward()
    raw = torch.cat([p.grad.flatten() for site in sites for p in (site.A, site.B)]).clone()
    constraint.project_gradients(sites)
    once = torch.cat([p.grad.flatten() for site in sites for p in (site.A, site.B)]).clone()
    constraint.project_gradients(sites)
    twice = torch.cat([p.grad.flatten() for site in sites for p in (site.A, site.B)])
    torch.testing.assert_close(twice, once, rtol=0, atol=float(1e-5 * raw.norm()))
    assert once.norm() <= raw.norm() * (1 + 1e-6)
    assert (once - raw).norm() > 1e-4 * raw.norm()  # positive control: something was removed
    small = 1e-4 / float(raw.norm())
    with torch.no_grad():
        for site in sites:
            site.B.sub_(small * site.B.grad)
            site.A.sub_(small * site.A.grad)
    # a plain gradient step of length 1e-4 changes h by second order only
    assert max(reliance(constraint, sites, directions)) <= 1e-5


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
@pytest.mark.parametrize("name", [*OPTIMIZERS, "Adam with coupled weight decay", "SGD clipped by value"])
def test_any_optimizer_stays_in_the_null_space_and_still_learns(kind, name):
    sites, directions = world()
    constraint = kind(k=2)
    constraint.bind(sites, directions)
    decay = {"weight_decay": 0.1} if "decay" in name else {}
    factors = [p for site in sites for p in (site.A, site.B)]
    optimizer = getattr(torch.optim, name.split()[0])(factors, lr=0.002, **decay)
    optimizer.register_step_post_hook(lambda *_: constraint.project_step(sites))
    first = loss_of(sites, 7).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(sites, 7).backward()
        constraint.project_gradients(sites)
        if "clipped" in name:
            torch.nn.utils.clip_grad_value_(factors, 1.0)
        optimizer.step()
    assert max(reliance(constraint, sites, directions)) <= 1e-5
    assert loss_of(sites, 7).item() < first


def test_adam_leaves_the_null_space_when_only_gradients_are_projected():
    """Pitfall: Adam scales each coordinate by itself, which mixes a dense direction back in."""
    sites, directions = world()
    constraint = WriteConstraint(k=2)
    constraint.bind(sites, directions)
    optimizer = torch.optim.AdamW([p for site in sites for p in (site.A, site.B)], lr=0.002)
    for _ in range(10):
        optimizer.zero_grad()
        loss_of(sites, 7).backward()
        constraint.project_gradients(sites)
        optimizer.step()
    assert reliance(constraint, sites, directions)[0] > 1e-2


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_half_precision_parameters_keep_their_dtype_and_nearly_their_null_space(kind):
    sites, directions = world(dtype=torch.bfloat16)
    constraint = kind(k=1)
    constraint.bind(sites, directions)
    with torch.no_grad():
        for site in sites:
            site.B.normal_(generator=torch.Generator().manual_seed(1))
    constraint.project_step(sites)
    loss_of(sites, 1).backward()
    constraint.project_gradients(sites)
    assert all(p.dtype == p.grad.dtype == torch.bfloat16 for site in sites for p in (site.A, site.B))
    first = Directions(
        {name: SiteDirections(d.U[:, :1], d.S, d.V[:, :1]) for name, d in directions.sites.items()},
        {},
        {name: LayerDirections(d.D[:, :1], d.S) for name, d in directions.layers.items()},
    )
    assert max(reliance(constraint, sites, first)) < 1e-2  # bfloat16 keeps eight bits


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_sites_without_a_gradient_are_left_alone(kind):
    sites, directions = world()
    constraint = kind()
    constraint.bind(sites, directions)
    constraint.project_gradients(sites)
    assert all(p.grad is None for site in sites for p in (site.A, site.B))


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_an_adapter_that_relies_on_the_directions_already_is_refused(kind):
    sites, directions = world()
    with torch.no_grad():
        d, writer = directions.sites[sites[2].name], sites[2]
        along = d.U[:, :1] + directions.layers["layers.1"].D[:, :1]
        writer.B.copy_(along @ torch.ones(1, 3) + 0.1)
        writer.A.copy_(torch.ones(3, 1) @ d.V[:, :1].mT)
    with pytest.raises(GrasplError, match=r"layers\.1\.self_attn\.o_proj: the adapter relies"):
        kind().bind(sites, directions)


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_an_adapter_trained_under_the_constraint_is_taken_up_again(kind):
    sites, directions = world()
    constraint = kind(k=2)
    constraint.bind(sites, directions)
    with torch.no_grad():
        for site in sites:
            site.B.normal_(generator=torch.Generator().manual_seed(1))
    constraint.project_step(sites)
    before = [site.B.detach() @ site.A.detach() for site in sites]
    kind(k=2).bind(sites, directions)
    for site, update in zip(sites, before, strict=True):
        torch.testing.assert_close(site.B @ site.A, update, rtol=0, atol=1e-5)


def test_binding_the_read_constraint_empties_a_random_start_without_changing_the_model():
    """Pitfall: A is not zero at the start, so A D = 0 does not hold by itself."""
    sites, directions = world()
    d = directions.sites[sites[0].name]
    assert (sites[0].A @ d.V).norm() > 0.1  # positive control
    ReadConstraint(k=2).bind(sites, directions)
    assert (sites[0].A @ d.V).norm() < 1e-5
    assert not sites[0].B.any()


@pytest.mark.parametrize("kind", parts(CONSTRAINTS))
def test_more_directions_than_the_file_holds_are_refused(kind):
    sites, directions = world(k=2)
    with pytest.raises(GrasplError, match=r"has 2, the constraint wants k = 3"):
        kind(k=3).bind(sites, directions)


def test_constraints_on_different_factors_hold_together_in_any_order():
    for order in ([WriteConstraint(k=2), ReadConstraint(k=2)], [PairConstraint(k=2), ReadConstraint(k=1)]):
        for constraints in (order, order[::-1]):
            sites, directions = world()
            held = Held(constraints)
            held.bind(sites, {}, directions)
            scattered(sites, 1)
            held.project_step(sites)
            for each in held.constraints:
                first = Directions(
                    {
                        name: SiteDirections(d.U[:, : each.k], d.S, d.V[:, : each.k])
                        for name, d in directions.sites.items()
                    }
                )
                assert max(reliance(each, sites, first)) < 1e-5


def test_constraints_that_would_undo_each_other_are_refused():
    with pytest.raises(GrasplError, match="WriteConstraint and ResidualConstraint both project B"):
        Held([WriteConstraint(), ResidualConstraint()])
    with pytest.raises(GrasplError, match="none is named"):
        Held([])


def test_an_instance_can_be_held_in_several_fits():
    constraint = WriteConstraint(k=2)
    (sites, directions), (others, theirs) = world(0), world(1)
    first, second = Held([constraint]), Held([constraint])
    first.bind(sites, {}, directions)
    second.bind(others, {}, theirs)
    scattered(sites, 2)
    first.project_step(sites)
    assert max(reliance(constraint, sites, directions)) < 1e-5
