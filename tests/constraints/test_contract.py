"""What every constraint must do; a new one is added to CONSTRAINTS and gets all of these."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graspl.adapters import Site, pair_reliance, read_reliance, write_reliance
from graspl.constraints import CombinedConstraint, PairConstraint, ReadConstraint, WriteConstraint
from graspl.directions import Directions, SiteDirections
from graspl.errors import GrasplError


def write_and_read(k=1):
    return CombinedConstraint([WriteConstraint(k=k), ReadConstraint(k=k)])


CONSTRAINTS = [WriteConstraint, ReadConstraint, PairConstraint, write_and_read]
MEASURES = {
    WriteConstraint: lambda site, d: write_reliance(site.B, site.A, d.U),
    ReadConstraint: lambda site, d: read_reliance(site.B, site.A, d.V),
    PairConstraint: lambda site, d: pair_reliance(site.B, site.A, d.U, d.V),
}
# LBFGS and SparseAdam want a closure or sparse gradients, Muon refuses what is not a hidden 2-D weight elsewhere
OPTIMIZERS = [
    name
    for name, kind in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(kind, torch.optim.Optimizer) and name not in {"Optimizer", "LBFGS", "SparseAdam"}
]


def basis(rows, k, generator, dtype=torch.float32):
    return torch.linalg.qr(torch.randn(rows, k, generator=generator, dtype=torch.float64))[0].to(dtype)


def world(seed=0, shapes=((12, 9), (5, 7)), r=3, k=2, dtype=torch.float32):
    """Sites at the start of training (B = 0, A random) and directions for them."""
    generator = torch.Generator().manual_seed(seed)
    sites, directions = [], {}
    for index, (out, in_) in enumerate(shapes):
        A = nn.Parameter(torch.randn(r, in_, generator=generator).to(dtype))
        site = Site(f"layers.{index}.q_proj", A, nn.Parameter(torch.zeros(out, r, dtype=dtype)), 2.0)
        sites.append(site)
        d = SiteDirections(basis(out, k, generator), torch.ones(r), basis(in_, k, generator))
        directions[site.name] = d
    return sites, Directions(directions)


def reliance(constraint, sites, directions):
    parts = getattr(constraint, "parts", [constraint])
    return [MEASURES[type(part)](site, directions.sites[site.name]) for site in sites for part in parts]


def loss_of(sites, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = [torch.randn(site.shape, generator=generator).to(site.B) for site in sites]
    return sum(
        ((site.scaling * site.B @ site.A - target) ** 2).sum()
        for site, target in zip(sites, targets, strict=True)
    )


@pytest.mark.parametrize("kind", CONSTRAINTS)
@given(
    seed=st.integers(0, 2**31),
    out=st.integers(2, 20),
    in_=st.integers(2, 20),
    r=st.integers(1, 6),
    k=st.integers(1, 2),
)
def test_an_exact_step_keeps_h_at_zero_from_anywhere(kind, seed, out, in_, r, k):
    sites, directions = world(seed, ((out, in_),), r, k)
    constraint = kind(k=k)
    constraint.bind(sites, directions)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():  # wherever the optimizer went
        sites[0].B.copy_(torch.randn(out, r, generator=generator))
        sites[0].A.copy_(torch.randn(r, in_, generator=generator))
    before = sites[0].B.detach().norm(), sites[0].A.detach().norm()
    constraint.project_step(sites)
    update = (sites[0].B @ sites[0].A).norm()
    if update > 1e-3:  # r = 1 or out = k can leave nothing of the update
        assert max(reliance(constraint, sites, directions)) <= 1e-4
    assert sites[0].B.norm() <= before[0] * (1 + 1e-6)
    assert sites[0].A.norm() <= before[1] * (1 + 1e-6)


@pytest.mark.parametrize("kind", CONSTRAINTS)
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


@pytest.mark.parametrize("kind", CONSTRAINTS)
@pytest.mark.parametrize("name", [*OPTIMIZERS, "Adam with coupled weight decay", "SGD clipped by value"])
def test_any_optimizer_stays_in_the_null_space_and_still_learns(kind, name):
    sites, directions = world(shapes=((12, 9), (9, 12)))
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
    sites, directions = world(shapes=((12, 9),))
    constraint = WriteConstraint(k=2)
    constraint.bind(sites, directions)
    optimizer = torch.optim.AdamW([p for site in sites for p in (site.A, site.B)], lr=0.002)
    for _ in range(10):
        optimizer.zero_grad()
        loss_of(sites, 7).backward()
        constraint.project_gradients(sites)
        optimizer.step()
    assert reliance(constraint, sites, directions)[0] > 1e-2


@pytest.mark.parametrize("kind", CONSTRAINTS)
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
        {name: SiteDirections(d.U[:, :1], d.S, d.V[:, :1]) for name, d in directions.sites.items()}
    )
    assert max(reliance(constraint, sites, first)) < 1e-2  # bfloat16 keeps eight bits


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_sites_without_a_gradient_are_left_alone(kind):
    sites, directions = world()
    constraint = kind()
    constraint.bind(sites, directions)
    constraint.project_gradients(sites)
    assert all(p.grad is None for site in sites for p in (site.A, site.B))


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_an_adapter_that_relies_on_the_directions_already_is_refused(kind):
    sites, directions = world()
    with torch.no_grad():
        d = directions.sites[sites[1].name]
        sites[1].B.copy_(d.U[:, :1] @ torch.ones(1, 3) + 0.1)
        sites[1].A.copy_(torch.ones(3, 1) @ d.V[:, :1].mT)
    with pytest.raises(GrasplError, match=r"layers\.1\.q_proj: the adapter relies"):
        kind().bind(sites, directions)


@pytest.mark.parametrize("kind", CONSTRAINTS)
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


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_more_directions_than_the_file_holds_are_refused(kind):
    sites, directions = world(k=2)
    with pytest.raises(GrasplError, match=r"has 2 but the constraint wants k = 3"):
        kind(k=3).bind(sites, directions)


def test_a_part_can_have_directions_of_its_own(tmp_path):
    sites, directions = world()
    others = Directions(
        {name: SiteDirections(d.U.flip(0), d.S, d.V.flip(0)) for name, d in directions.sites.items()}
    )
    others.save(tmp_path / "others.safetensors")
    both = CombinedConstraint(
        [WriteConstraint(k=2), ReadConstraint(k=2, directions=str(tmp_path / "others.safetensors"))]
    )
    both.bind(sites, directions)
    with torch.no_grad():
        for site in sites:
            site.B.normal_(generator=torch.Generator().manual_seed(1))
    both.project_step(sites)
    for site in sites:
        own, other = directions.sites[site.name], others.sites[site.name]
        assert write_reliance(site.B, site.A, own.U) < 1e-5
        assert read_reliance(site.B, site.A, other.V) < 1e-5
        assert read_reliance(site.B, site.A, own.V) > 1e-3
