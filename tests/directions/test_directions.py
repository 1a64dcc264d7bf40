from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from graspl.adapters import AdapterFolder, Site
from graspl.directions import Directions, RandomDirections, SiteDirections, TopSingular
from graspl.errors import GrasplError, NonFiniteAdapterError


def site(name="layers.0.q_proj", out=6, in_=5, r=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    B = nn.Parameter(torch.randn(out, r, generator=generator))
    return Site(name, nn.Parameter(torch.randn(r, in_, generator=generator)), B, 2.0)


def adapter(*sites):
    return AdapterFolder(Path("adapter"), "base", "0" * 64, list(sites))


def test_top_singular_finds_a_planted_direction():
    planted = site()
    u, v = torch.eye(6)[:, 2:3], torch.eye(5)[:, 1:2]
    with torch.no_grad():
        planted.B[:, :1] = 100 * u
        planted.A[:1] = v.mT
    found = TopSingular(k=2)(adapter(planted)).sites[planted.name]
    assert float((found.U[:, :1].mT @ u).abs()) > 0.99
    assert float((found.V[:, :1].mT @ v).abs()) > 0.99
    assert found.U.shape == (6, 2)
    assert len(found.S) == 3  # the whole spectrum
    assert list(found.S) == sorted(found.S.tolist(), reverse=True)


def test_a_file_gives_back_what_was_saved(tmp_path):
    directions = TopSingular(k=2)(adapter(site(), site("layers.1.q_proj", 4, 7, seed=1)))
    directions.save(tmp_path / "d.safetensors")
    read = Directions.load(tmp_path / "d.safetensors")
    kind = {"identification": "TopSingular", "k": "2", "signed": "false", "filters": "false"}
    assert read.metadata == directions.metadata == kind | {"skip": "0"}
    for name, ours in directions.sites.items():
        for a, b in zip(ours, read.sites[name], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_a_number_of_directions_that_cannot_be_is_refused(k):
    with pytest.raises(GrasplError, match=rf"k.*{k}"):
        TopSingular(k=k)(adapter(site()))


def test_an_untrained_adapter_is_refused():
    untrained = site()
    nn.init.zeros_(untrained.B)
    with pytest.raises(GrasplError, match=r"layers\.0\.q_proj: the update is zero"):
        TopSingular()(adapter(untrained))


def test_nan_in_a_factor_names_the_site():
    broken = site()
    with torch.no_grad():
        broken.A[0, 0] = torch.nan
    with pytest.raises(NonFiniteAdapterError, match=r"layers\.0\.q_proj"):
        TopSingular()(adapter(broken))


def test_directions_of_another_model_are_refused():
    directions = TopSingular()(adapter(site()))
    with pytest.raises(GrasplError, match=r"(?s)layers\.1\.v_proj is only in the adapter in training"):
        directions.bases([site(), site("layers.1.v_proj")], side="U", k=1)
    with pytest.raises(GrasplError, match=r"made for a weight \(6, 5\), this model's is \(8, 5\)"):
        directions.bases([site(out=8)], side="U", k=1)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a.U": torch.eye(2)}, {"format": "graspl-directions-1"}, "not U, S, V"),
        ({"a.U": torch.eye(2)}, {}, "no graspl directions"),
        (
            {"a.U": torch.ones(2, 1), "a.S": torch.ones(1), "a.V": torch.eye(2)},
            {"format": "graspl-directions-1"},
            r"a\.U: the columns are not orthonormal",
        ),
        (
            {"a.U": torch.eye(2), "a.S": torch.ones(1), "a.V": torch.full((2, 1), torch.nan)},
            {"format": "graspl-directions-1"},
            r"a\.V: the columns are not orthonormal",
        ),
    ],
)
def test_files_that_are_no_directions_are_refused(tmp_path, tensors, metadata, message):
    save_file(tensors, tmp_path / "d.safetensors", metadata=metadata)
    with pytest.raises(GrasplError, match=message):
        Directions.load(tmp_path / "d.safetensors")


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(GrasplError, match="run graspl identify"):
        Directions.load(tmp_path / "none.safetensors")
    (tmp_path / "d.safetensors").write_bytes(b"not tensors")
    with pytest.raises(GrasplError, match=r"d\.safetensors"):
        Directions.load(tmp_path / "d.safetensors")


def test_bases_come_in_float32_for_half_precision_sites():
    half = site()
    half = Site(half.name, nn.Parameter(half.A.bfloat16()), nn.Parameter(half.B.bfloat16()), 1.0)
    assert TopSingular()(adapter(site())).bases([half], side="V", k=1)[0].dtype == torch.float32


def test_saving_keeps_only_the_first_k_but_all_singular_values(tmp_path):
    found = TopSingular(k=1)(adapter(site()))
    assert isinstance(found.sites["layers.0.q_proj"], SiteDirections)
    assert found.sites["layers.0.q_proj"].V.shape == (5, 1)


def test_the_second_direction_is_a_control():
    both, second = TopSingular(k=2)(adapter(site())), TopSingular(k=1, skip=1)(adapter(site()))
    name = "layers.0.q_proj"
    assert torch.equal(second.sites[name].U, both.sites[name].U[:, 1:])
    assert torch.equal(second.sites[name].S, both.sites[name].S)
    with pytest.raises(GrasplError, match="after the first 3 cannot be taken"):
        TopSingular(k=1, skip=3)(adapter(site()))


def test_random_directions_follow_from_the_seed():
    first, again, other = (
        RandomDirections(k=2, seed=seed)(adapter(site())).sites["layers.0.q_proj"] for seed in (0, 0, 1)
    )
    assert torch.equal(first.U, again.U)
    assert not torch.equal(first.U, other.U)
    torch.testing.assert_close(first.V.mT @ first.V, torch.eye(2), rtol=0, atol=1e-6)
    with pytest.raises(GrasplError, match="6 directions cannot be taken"):
        RandomDirections(k=6)(adapter(site()))
