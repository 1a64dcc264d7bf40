"""GRASP in one fit: the throw-away adapter, rounds, and direct subtraction as a control."""

import warnings

import pytest
import torch
from conftest import CHAT_ROWS
from lightning import Callback, Trainer, seed_everything

from graspl.activations import NaturalDirections
from graspl.activations.streams import gathered
from graspl.adapters import LoraOptions, writers_by_layer
from graspl.constraints import ActivationConstraint, ResidualConstraint
from graspl.data import ChatDataModule
from graspl.directions import LayerSingular, TopSingular
from graspl.errors import GrasplError
from graspl.methods import GRASPLitModule, LoRALitModule, SubtractionLitModule


class Start(Callback):
    """Remembers the adapter, the optimizer and the batch of the first step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not hasattr(self, "factors"):
            self.factors = flat(pl_module)
            self.state = dict(trainer.optimizers[0].state)
            self.ids = batch["input_ids"].clone()
            self.random_state = torch.get_rng_state()


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad]).clone()


def adam(params):
    return torch.optim.AdamW(params, lr=1e-2)


@pytest.fixture
def fit(model_folder, write_rows, tmp_path):
    """Return a function that fits on a tiny model and returns the module and what it began with."""
    rows = str(write_rows(CHAT_ROWS))

    def run(kind=GRASPLitModule, *, text=rows, lightning=None, **options):
        seed_everything(0, verbose=False)
        dropout = LoraOptions(r=4, lora_dropout=0.1)
        module = kind(base_model=str(model_folder()), optimizer=adam, **{"lora": dropout} | options)
        datamodule = ChatDataModule(train=rows, text=text, base_model=str(model_folder()), batch_size=3)
        start = Start()
        settings = {
            "accelerator": "cpu", "max_steps": 3, "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path,
            "limit_val_batches": 0, "callbacks": [start],
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have many workers")
            warnings.filterwarnings("ignore", ".*LeafSpec")
            Trainer(**settings | (lightning or {})).fit(module, datamodule)
        return module, start

    return run


def test_the_fit_begins_as_if_there_had_been_no_throw_away_adapter(fit):
    module, one_fit = fit()
    _, naive = fit(LoRALitModule)
    assert torch.equal(one_fit.factors, naive.factors)
    assert torch.equal(one_fit.ids, naive.ids)
    assert torch.equal(one_fit.random_state, naive.random_state)
    assert one_fit.state == {}
    assert int(module.found_directions.metadata["naive_steps"]) > 1
    assert module.found_directions.width("D") == 6


def test_one_fit_equals_two_runs(fit, tmp_path):
    """The two-run way with the same directions in a file ends with the same weights."""
    one, _ = fit()
    one.found_directions.save(tmp_path / "d.safetensors")
    two, _ = fit(directions=str(tmp_path / "d.safetensors"))
    assert two.found_directions is None
    assert torch.equal(flat(one), flat(two))
    naive, _ = fit(LoRALitModule)
    assert not torch.allclose(flat(one), flat(naive), atol=1e-4)  # positive control


def test_the_throw_away_adapter_is_a_naive_fit(fit):
    """Its directions are those of a naive run of as many steps, stopped before they are stable."""
    one, _ = fit(
        identification=LayerSingular(k=2), identification_steps=3, identification_stable=2.0,
        constraint=ActivationConstraint(k=2), lora=LoraOptions(r=4),
    )  # fmt: skip
    naive, _ = fit(LoRALitModule, lora=LoraOptions(r=4))
    writers = writers_by_layer(naive.sites)
    for layer, sites in writers.items():
        written = torch.cat([site.scaling * (site.B @ site.A).detach() for site in sites], dim=1)
        U = torch.linalg.svd(written)[0][:, :2]
        overlap = (U.mT @ one.found_directions.layers[layer].D).square().sum() / 2
        assert overlap > 0.99


def test_accumulated_batches_make_one_step(fit):
    small, _ = fit(
        identification_steps=2, identification_stable=2.0, lightning={"accumulate_grad_batches": 2}
    )
    assert small.found_directions.metadata["naive_steps"] == "2"


def test_it_stops_when_the_directions_are_stable(fit, caplog):
    soon, _ = fit(identification_stable=0.0)
    assert soon.found_directions.metadata["naive_steps"] == "2"
    never, _ = fit(identification_stable=1.5, identification_steps=4)
    assert never.found_directions.metadata["naive_steps"] == "4"
    assert "not stable after 4" in caplog.text


def test_site_directions_are_found_within_the_fit_too(fit):
    from graspl.adapters import write_reliance
    from graspl.constraints import WriteConstraint

    module, _ = fit(identification=TopSingular(), constraint=WriteConstraint())
    for site in module.sites:
        U = module.found_directions.sites[site.name].U
        assert write_reliance(site.B.detach(), site.A.detach(), U) <= 1e-5


def test_rounds_add_orthogonal_directions_until_the_noise_floor(fit, monkeypatch):
    import graspl.methods.rounds as rounds

    monkeypatch.setattr(rounds, "noise_floor", lambda *_, **__: (0.0, 5))
    module, _ = fit(identification=LayerSingular(k=2), constraint=ActivationConstraint(k=2), rounds=3)
    found = module.found_directions
    assert found.metadata["rounds"] == "3"
    assert (
        int(found.metadata["naive_steps"]) > 5 + 2 * 3
    )  # every throw-away adapter's steps and the noise floor's
    assert module.constraint.k == found.width("D") == 6
    for layer in found.layers.values():
        torch.testing.assert_close(layer.D.mT @ layer.D, torch.eye(6), rtol=0, atol=1e-4)
    monkeypatch.setattr(rounds, "noise_floor", lambda *_, **__: (1e9, 5))
    module, _ = fit(identification=LayerSingular(k=2), constraint=ActivationConstraint(k=2), rounds=3)
    assert module.constraint.k == module.found_directions.width("D") == 2
    monkeypatch.undo()
    module, start = fit(identification=LayerSingular(k=2), constraint=ActivationConstraint(k=2), rounds=2)
    assert torch.equal(start.factors, fit(LoRALitModule)[1].factors)  # the noise floor is thrown away too


def test_a_tolerance_keeps_the_stream_where_the_base_model_has_it(fit):
    drift = {}
    for tolerance in (None, 0.01):
        constraint = ActivationConstraint(k=2, tolerance=tolerance, every=1, share=1.0)
        module, _ = fit(constraint=constraint, lora=LoraOptions(r=4), lightning={"max_steps": 12})
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


def test_what_cannot_work_is_named(fit):
    with pytest.raises(GrasplError, match="brings none"):
        fit(text=None)
    with pytest.raises(GrasplError, match="hold sites only"):
        fit(identification=TopSingular())
    with pytest.raises(GrasplError, match=r"model\.rounds"):
        fit(identification=TopSingular(), rounds=2)
    with pytest.raises(GrasplError, match=r"none\.jsonl"):
        fit(identification=NaturalDirections(text="none.jsonl"))


def test_direct_subtraction_trains_naively_and_saves_without_the_directions(fit):
    settings = {"identification": LayerSingular(k=2), "constraint": ResidualConstraint(k=2)}
    module, _ = fit(SubtractionLitModule, **settings)
    naive, _ = fit(LoRALitModule)
    assert torch.equal(flat(module), flat(naive))
    saved = module.adapter_state()
    assert torch.equal(flat(module), flat(naive))  # saving changes nothing
    for layer, sites in writers_by_layer(module.sites).items():
        for site in sites:
            D = module.found_directions.layers[layer].D
            B = next(tensor for name, tensor in saved.items() if f"{site.name}.lora_B" in name)
            assert (D.mT @ B).norm() <= 1e-5
            assert (D.mT @ site.B).norm() > 1e-3


def test_direct_subtraction_is_what_a_validation_in_the_fit_measures(fit):
    settings = {"identification": LayerSingular(k=2), "constraint": ResidualConstraint(k=2)}
    every = {"limit_val_batches": 1.0, "val_check_interval": 1, "num_sanity_val_steps": 0}
    measured = {}

    class Measure(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            D = pl_module._loaded_directions.layers["model.layers.0"].D
            site = writers_by_layer(pl_module.sites)["model.layers.0"][0]
            measured["inside"] = float((D.mT @ site.B).detach().norm())

    module, _ = fit(SubtractionLitModule, lightning=every | {"callbacks": [Measure()]}, **settings)
    site = writers_by_layer(module.sites)["model.layers.0"][0]
    assert measured["inside"] <= 1e-5
    assert (module.found_directions.layers["model.layers.0"].D.mT @ site.B).norm() > 1e-3
