import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graspl.adapters.files import read_adapter, write_adapter
from graspl.adapters.sites import Site
from graspl.adapters.subspaces import angle_cosines, interpolated, shared_subspace
from graspl.errors import GrasplError

SIZES = {"seed": st.integers(0, 10_000), "r": st.integers(1, 4), "r2": st.integers(1, 4)}


def random_site(seed, *, out=9, in_=7, r=3, scaling=2.0, name="layer.q"):
    generator = torch.Generator().manual_seed(seed)
    return Site(
        name, torch.randn(r, in_, generator=generator), torch.randn(out, r, generator=generator), scaling
    )


def update(site):
    return site.scaling * site.B.double() @ site.A.double()


@given(**SIZES)
def test_the_cosine_is_that_of_the_whole_updates(seed, r, r2):
    ours, theirs = random_site(seed, r=r), random_site(seed + 1, r=r2, scaling=0.5)
    expected = torch.nn.functional.cosine_similarity(update(ours).flatten(), update(theirs).flatten(), dim=0)
    assert shared_subspace(ours, theirs, k=2).cosine == pytest.approx(float(expected), abs=1e-6)


@given(**SIZES)
def test_principal_angles_are_scipys(seed, r, r2):
    from scipy.linalg import subspace_angles

    ours, theirs = random_site(seed, r=r), random_site(seed + 1, r=r2)
    k = min(r, r2)
    found = shared_subspace(ours, theirs, k=k)
    U, U2 = (torch.linalg.svd(update(site))[0][:, :k].numpy() for site in (ours, theirs))
    expected = sorted(torch.tensor(subspace_angles(U, U2)).cos().tolist(), reverse=True)
    assert found.left == pytest.approx(expected, abs=1e-5)


def test_equal_and_orthogonal_updates():
    site = random_site(0)
    same = shared_subspace(site, site, k=3)
    assert same.cosine == pytest.approx(1.0)
    assert same.left == pytest.approx([1.0] * 3, abs=1e-6)
    opposite = shared_subspace(site, Site(site.name, site.A, -site.B, site.scaling), k=3)
    assert opposite.cosine == pytest.approx(-1.0)
    assert opposite.left == pytest.approx([1.0] * 3, abs=1e-6)
    eye = torch.eye(9)
    assert angle_cosines(eye[:, :2], eye[:, 2:4]) == [0.0, 0.0]
    assert same.chance == pytest.approx(3 / 9)


def test_an_untrained_update_has_no_direction():
    site = random_site(0)
    with pytest.raises(GrasplError, match=r"layer\.q: an update is zero"):
        shared_subspace(site, Site(site.name, site.A, torch.zeros_like(site.B), 1.0), k=1)


@given(**SIZES, at=st.floats(-0.5, 1.5))
def test_what_lies_between_is_exact_in_the_updates(seed, r, r2, at):
    ours, theirs = random_site(seed, r=r), random_site(seed + 1, r=r2, scaling=0.5)
    alone = random_site(seed + 2, name="layer.v")
    between = {site.name: site for site in interpolated([ours], [theirs, alone], at=at)}
    torch.testing.assert_close(
        update(between["layer.q"]), (1 - at) * update(ours) + at * update(theirs), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(update(between["layer.v"]), at * update(alone), atol=1e-5, rtol=1e-5)


def test_other_shapes_are_refused():
    with pytest.raises(GrasplError, match=r"layer\.q: is \(9, 7\) in one adapter, \(8, 7\) in the other"):
        interpolated([random_site(0)], [random_site(0, out=8)], at=0.5)


def test_a_written_adapter_is_read_back(tmp_path):
    sites = [
        random_site(0, r=3),
        random_site(1, r=2, scaling=0.25, name="layer.v"),
        random_site(2, scaling=1.0, name="layer.w"),
    ]
    write_adapter(tmp_path / "adapter", "some/base", sites)
    found = read_adapter(tmp_path / "adapter")
    assert found.base_model == "some/base"
    for site, again in zip(sites, found.sites, strict=True):
        torch.testing.assert_close(update(again), update(site))
