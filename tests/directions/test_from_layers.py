"""Layers' directions from weights, and what several adapters share."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graspl.adapters import AdapterFolder, Site
from graspl.directions import (
    AcrossAdapters,
    Directions,
    LayerConsensus,
    LayerSingular,
    RandomLayerDirections,
    TopSingular,
    residual_spectra,
)
from graspl.directions.dimension import chosen_k, dimension, effective_rank
from graspl.errors import GrasplError


def adapter(
    seed=0, layers=2, hidden=12, r=3, planted=None, names=("self_attn.o_proj", "mlp.down_proj", "mlp.up_proj")
):
    """An adapter of random factors; `planted` (hidden,) is written strongly by every writer."""
    generator = torch.Generator().manual_seed(seed)
    sites = []
    for layer in range(layers):
        for name in names:
            out, in_ = (20, hidden) if "up" in name else (hidden, 9)
            A, B = torch.randn(r, in_, generator=generator), 0.1 * torch.randn(out, r, generator=generator)
            if planted is not None and out == hidden:
                B[:, 0] += 5 * planted
            sites.append(Site(f"model.layers.{layer}.{name}", A, B, 0.5))
    return AdapterFolder(Path("adapter"), "base", "", sites)


def unit(hidden=12, seed=9):
    x = torch.randn(hidden, generator=torch.Generator().manual_seed(seed))
    return x / x.norm()


@given(seed=st.integers(0, 2**31), r=st.integers(1, 5), hidden=st.integers(4, 16))
def test_spectra_equal_the_dense_decomposition(seed, r, hidden):
    folder = adapter(seed, hidden=hidden, r=r)
    for layer, (U, S) in residual_spectra(folder).items():
        writers = [site for site in folder.sites if site.name.startswith(layer) and "up" not in site.name]
        dense = torch.cat([site.scaling * site.B @ site.A for site in writers], dim=1)
        values = torch.linalg.svdvals(dense)[: len(S)]
        torch.testing.assert_close(S, values, rtol=1e-3, atol=1e-4 * float(values[0]))
        torch.testing.assert_close(U @ U.mT @ dense, dense, rtol=0, atol=2e-4 * float(dense.norm()))


def test_a_shared_direction_is_found_by_all_and_not_by_chance():
    planted = unit()
    folder = adapter(planted=planted)
    for method in (LayerSingular(k=1), LayerConsensus(k=1)):
        for layer in method(folder).layers.values():
            assert abs(float(layer.D[:, 0] @ planted)) > 0.95
    for layer in (
        *LayerSingular(k=1, skip=1)(folder).layers.values(),
        *RandomLayerDirections(k=1)(folder).layers.values(),
    ):
        assert abs(float(layer.D[:, 0] @ planted)) < 0.7
    strengths = next(iter(LayerConsensus(k=1)(folder).layers.values())).S
    assert strengths[0].square() > 0.9  # all writers agree


def test_bottom_directions_are_the_weakest():
    folder = adapter()
    spectra = residual_spectra(folder)
    for name, layer in LayerSingular(k=2, bottom=True)(folder).layers.items():
        torch.testing.assert_close(layer.D, spectra[name].D[:, -2:])


def test_what_adapters_share_is_found_and_what_one_has_is_not(monkeypatch):
    planted, own = unit(), unit(seed=10)
    own = own - (own @ planted) * planted
    folders = {
        "a": adapter(1, planted=planted),
        "b": adapter(2, planted=planted),
        "c": adapter(3, planted=own / own.norm()),
    }
    monkeypatch.setattr("graspl.directions.across.read_adapter", lambda name: folders[name])
    shared = AcrossAdapters(["b"], k=1, method=LayerSingular(k=2))(folders["a"])
    for layer in shared.layers.values():
        assert abs(float(layer.D[:, 0] @ planted)) > 0.95
        assert layer.S[0] > 0.95
    apart = AcrossAdapters(["c"], k=1, method=LayerSingular(k=1))(folders["a"])
    assert all(layer.S[0] < 0.8 for layer in apart.layers.values())
    sites = AcrossAdapters(["b"], k=1, method=TopSingular(k=2))(folders["a"])
    assert abs(float(sites.sites["model.layers.0.self_attn.o_proj"].U[:, 0] @ planted)) > 0.95


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (LayerSingular(k=7), "7 directions cannot be taken from what model.layers.0 writes, which has 6"),
        (LayerSingular(k=0), "0 directions"),
        (LayerConsensus(k=3), "the writers up to model.layers.0, which has 2"),
        (RandomLayerDirections(k=13), "which has 12"),
        (AcrossAdapters([]), "names no adapter"),
    ],
)
def test_more_directions_than_there_are_is_an_error(method, words):
    with pytest.raises(GrasplError, match=words):
        method(adapter())


def test_an_adapter_without_writers_is_refused():
    with pytest.raises(GrasplError, match="no site writes"):
        LayerSingular(k=1)(adapter(names=("mlp.up_proj",)))


def test_layers_survive_the_file(tmp_path):
    found = LayerSingular(k=2)(adapter())
    found.save(tmp_path / "d.safetensors")
    back = Directions.load(tmp_path / "d.safetensors")
    assert back.width("D") == 2
    assert back.width("U") == 0
    for name, layer in found.layers.items():
        assert torch.equal(back.layers[name].D, layer.D)


def test_the_dimension_counts_what_stands_out():
    S = torch.tensor([9.0, 8.0, 1.0, 0.9, 0.8])
    assert dimension(S).gap == 2
    assert dimension(S, torch.tensor([0.95, 0.1])).above_floor == 3
    assert dimension(S, torch.tensor([10.0])).above_floor == 0
    assert effective_rank(torch.ones(5)) == pytest.approx(5)
    assert effective_rank(torch.zeros(0)) == 0


def test_k_is_chosen_from_the_spectra(tmp_path):
    """A planted direction stands out by the gap and above the noise floor; one number serves all layers."""
    S = {"a": torch.tensor([9.0, 8.0, 1.0]), "b": torch.tensor([9.0, 8.0, 7.0, 1.0])}
    assert chosen_k({"a": S["a"]}) == 2
    assert chosen_k(S | {"c": S["a"]}) == 2  # the median
    assert chosen_k(S, dict.fromkeys(S, torch.tensor([8.5]))) == 1
    assert chosen_k(S, dict.fromkeys(S, torch.tensor([99.0]))) == 1  # never none
    with pytest.raises(GrasplError, match="other layers"):
        chosen_k(S, {"a": S["a"]})
    planted = adapter(planted=unit())
    found = LayerSingular(k=None)(planted)
    assert found.metadata["k"] == "1"
    assert found.width("D") == 1
    for layer, fixed in LayerSingular(k=1)(planted).layers.items():
        assert torch.equal(found.layers[layer].D, fixed.D)


def test_a_constraint_without_k_holds_all_directions():
    directions = LayerSingular(k=3)(adapter())
    names = list(directions.layers)
    assert [D.shape[1] for D in directions.layer_bases(names, k=None)] == [3] * len(names)


def test_identify_adapter_writes_layers_too(tmp_path, monkeypatch):
    from graspl.directions import identify_adapter

    monkeypatch.setattr("graspl.directions.identify.read_adapter", lambda _: adapter())
    found = identify_adapter(tmp_path / "adapter", LayerSingular(k=2), tmp_path / "d.safetensors")
    back = Directions.load(tmp_path / "d.safetensors")
    assert set(back.layers) == set(found.layers) == {"model.layers.0", "model.layers.1"}
    assert back.metadata["base_model"] == "base"


def test_directions_of_several_adapters_are_of_the_inner_kind_and_an_old_file_does_not_say(
    tmp_path, monkeypatch
):
    folder = adapter()
    monkeypatch.setattr("graspl.directions.across.read_adapter", lambda _: folder)
    found = {
        method: AcrossAdapters(["b"], method=method(k=2))(folder) for method in (TopSingular, LayerSingular)
    }
    assert [(each.is_signed, each.are_filters) for each in found.values()] == [(False, False), (False, True)]
    Directions(found[TopSingular].sites).save(tmp_path / "d.safetensors")
    old = Directions.load(tmp_path / "d.safetensors")
    assert old.is_signed is old.are_filters is None
