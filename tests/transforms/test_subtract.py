"""Direct subtraction: a control that trains naively."""

import pytest
import torch
from fits import factors
from lightning import Callback

from graspl.adapters import writers_by_layer
from graspl.constraints import ActivationConstraint, ResidualConstraint
from graspl.directions import LayerSingular
from graspl.errors import GrasplError
from graspl.methods import LoRALitModule, ThrowAwayFit
from graspl.methods.state import finished_factors
from graspl.transforms import Subtract


def subtracting():
    """Return what a fit needs to subtract two directions a layer."""
    held = ResidualConstraint(k=2)
    return {"directions": ThrowAwayFit(LayerSingular(k=2)), "transforms": [Subtract(held)]}


def test_direct_subtraction_trains_naively_and_saves_without_the_directions(one_fit):
    module, _ = one_fit(LoRALitModule, **subtracting())
    naive, _ = one_fit(LoRALitModule)
    assert torch.equal(factors(module), factors(naive))
    saved = finished_factors(module)
    assert torch.equal(factors(module), factors(naive))  # saving changes nothing
    for layer, sites in writers_by_layer(module.sites).items():
        for site in sites:
            D = module.found_directions.layers[layer].D
            B = next(tensor for name, tensor in saved.items() if f"{site.name}.lora_B" in name)
            assert (D.mT @ B).norm() <= 1e-5
            assert (D.mT @ site.B).norm() > 1e-3


def test_direct_subtraction_is_what_a_validation_in_the_fit_measures(one_fit):
    every = {"limit_val_batches": 1.0, "val_check_interval": 1, "num_sanity_val_steps": 0}
    measured = {}

    class Measure(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            D = pl_module.directions_in_use.layers["model.layers.0"].D
            site = writers_by_layer(pl_module.sites)["model.layers.0"][0]
            measured["inside"] = float((D.mT @ site.B).detach().norm())

    module, _ = one_fit(LoRALitModule, lightning=every | {"callbacks": [Measure()]}, **subtracting())
    site = writers_by_layer(module.sites)["model.layers.0"][0]
    assert measured["inside"] <= 1e-5
    assert (module.found_directions.layers["model.layers.0"].D.mT @ site.B).norm() > 1e-3


def test_a_constraint_on_the_stream_has_nothing_to_subtract():
    with pytest.raises(
        GrasplError, match=r"Subtract\.constraint: ActivationConstraint does not act on factors"
    ) as error:
        Subtract(ActivationConstraint())
    assert "\n" not in str(error.value)
