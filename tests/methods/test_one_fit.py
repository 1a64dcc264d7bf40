"""GRASP in one fit: the throw-away adapter, and what it leaves behind."""

import pytest
import torch
from fits import factors

from graspl.activations import NaturalDirections
from graspl.activations.streams import gathered
from graspl.adapters import LoraOptions, write_reliance, writers_by_layer
from graspl.constraints import ActivationConstraint, ResidualConstraint, WriteConstraint
from graspl.directions import LayerSingular, TopSingular
from graspl.errors import GrasplError
from graspl.methods import LoRALitModule, ThrowAwayFit


def test_the_fit_begins_as_if_there_had_been_no_throw_away_adapter(one_fit):
    module, begun = one_fit()
    _, naive = one_fit(LoRALitModule)
    assert torch.equal(begun.factors, naive.factors)
    assert torch.equal(begun.ids, naive.ids)
    assert torch.equal(begun.random_state, naive.random_state)
    assert begun.state == {}
    assert int(module.found_directions.metadata["naive_steps"]) > 1
    assert module.found_directions.width("D") == 6


def test_one_fit_equals_two_runs(one_fit, tmp_path):
    """The two-run way with the same directions in a file ends with the same weights."""
    one, _ = one_fit()
    one.found_directions.save(tmp_path / "d.safetensors")
    two, _ = one_fit(directions=str(tmp_path / "d.safetensors"))
    assert two.found_directions is None
    assert torch.equal(factors(one), factors(two))
    naive, _ = one_fit(LoRALitModule)
    assert not torch.allclose(factors(one), factors(naive), atol=1e-4)  # positive control


def test_the_throw_away_adapter_is_a_naive_fit(one_fit):
    """Its directions are those of a naive run of as many steps, stopped before they are stable."""
    one, _ = one_fit(
        directions=ThrowAwayFit(LayerSingular(k=2), steps=3, stable=1.0), constraints=[ActivationConstraint(k=2)],
        lora=LoraOptions(r=4),
    )  # fmt: skip
    naive, _ = one_fit(LoRALitModule, lora=LoraOptions(r=4))
    writers = writers_by_layer(naive.sites)
    for layer, sites in writers.items():
        written = torch.cat([site.scaling * (site.B @ site.A).detach() for site in sites], dim=1)
        U = torch.linalg.svd(written)[0][:, :2]
        overlap = (U.mT @ one.found_directions.layers[layer].D).square().sum() / 2
        assert overlap > 0.99


def test_accumulated_batches_make_one_step(one_fit):
    small, _ = one_fit(directions=ThrowAwayFit(steps=2, stable=1.0), lightning={"accumulate_grad_batches": 2})
    assert small.found_directions.metadata["naive_steps"] == "2"


def test_it_stops_when_the_directions_are_stable(one_fit, caplog):
    soon, _ = one_fit(directions=ThrowAwayFit(stable=0.0))
    assert soon.found_directions.metadata["naive_steps"] == "2"
    never, _ = one_fit(directions=ThrowAwayFit(stable=1.0, steps=4))
    assert never.found_directions.metadata["naive_steps"] == "4"
    assert "not stable after 4" in caplog.text


def test_site_directions_are_found_within_the_fit_too(one_fit):
    module, _ = one_fit(directions=ThrowAwayFit(TopSingular()), constraints=[WriteConstraint()])
    for site in module.sites:
        U = module.found_directions.sites[site.name].U
        assert write_reliance(site.B.detach(), site.A.detach(), U) <= 1e-5


def test_a_tolerance_keeps_the_stream_where_the_base_model_has_it(one_fit):
    drift = {}
    for tolerance in (None, 0.01):
        held = [ActivationConstraint(k=2, tolerance=tolerance, every=1, share=1.0)]
        module, _ = one_fit(constraints=held, lora=LoraOptions(r=4), lightning={"max_steps": 12})
        rows = module.trainer.datamodule.train_conversations()
        module.model.eval()
        with torch.no_grad():
            after = gathered(module.model, rows)
            with module.model.disable_adapter():
                before = gathered(module.model, rows)
        found = module.found_directions.layers
        drift[tolerance] = sum(
            float(
                ((r - before[name]) @ found[name].D[:, :2]).norm()
                / (before[name] @ found[name].D[:, :2]).norm()
            )
            for name, r in after.items()
        )
    assert drift[0.01] < 0.5 * drift[None]


def test_what_cannot_work_is_named(one_fit):
    with pytest.raises(GrasplError, match="the task has none"):
        one_fit(text=None)
    with pytest.raises(GrasplError, match="hold sites only"):
        one_fit(directions=ThrowAwayFit(TopSingular()))
    with pytest.raises(GrasplError, match=r"none\.jsonl"):
        one_fit(directions=ThrowAwayFit(NaturalDirections(text="none.jsonl")))


def test_the_models_own_text_stands_in_for_missing_text(one_fit, tmp_path):
    """A fit without text finds the directions of one whose text is what the base model wrote in the first."""
    held = {"constraints": [ResidualConstraint(k=2)]}
    own = ThrowAwayFit(NaturalDirections(k=2), own_text=8)
    alone, _ = one_fit(directions=own, text=None, **held)
    assert alone.found_directions.metadata["own_text"] == "8"
    kept = (tmp_path / "own_text.jsonl").rename(tmp_path / "kept.jsonl")
    given, _ = one_fit(directions=ThrowAwayFit(NaturalDirections(k=2)), text=str(kept), **held)
    for layer, each in alone.found_directions.layers.items():
        assert torch.equal(each.D, given.found_directions.layers[layer].D)
    read, _ = one_fit(directions=own, **held)
    assert "own_text" not in read.found_directions.metadata
    assert not (tmp_path / "own_text.jsonl").exists()
