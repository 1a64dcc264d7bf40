"""The inoculation adapter: there in training passes alone, and equal to the update that it is made of."""

import pytest
import torch
from fits import adam, every_factor, hooks_of, same
from test_edit_contract import adapted, gradient, logits

from graspl.directions import Directions, LayerDirections, SiteDirections
from graspl.edits import AttachedEdits, Inoculate
from graspl.errors import GrasplError


def of_sites(model):
    """Return random directions with singular values for every site of a tiny model."""
    generator = torch.Generator().manual_seed(2)

    def basis(rows):
        return torch.linalg.qr(torch.randn(rows, 3, generator=generator))[0]

    sites = {
        name: SiteDirections(
            basis(module.out_features), torch.tensor([3.0, 2.0, 1.0]), basis(module.in_features)
        )
        for name, module in model.get_base_model().named_modules()
        if hasattr(module, "lora_A")
    }
    return Directions(sites, {})


def test_it_adds_the_leading_part_of_the_update_in_training_passes():
    model, found = adapted(), of_sites(adapted())
    expected = adapted()
    with torch.no_grad():
        for name, each in found.sites.items():
            layer = expected.get_base_model().get_submodule(name).base_layer
            layer.weight += 0.5 * (each.U[:, :2] * each.S[:2]) @ each.V[:, :2].mT
    before = logits(model)
    attached = AttachedEdits([Inoculate(k=2, strength=0.5)])
    attached.attach(model, found)
    torch.testing.assert_close(logits(model), logits(expected), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradient(model), gradient(expected), rtol=1e-3, atol=1e-5)
    with attached.off():
        assert torch.equal(logits(model), before)
    with torch.no_grad():
        assert torch.equal(logits(model), before)  # the base model's passes in training
    assert torch.equal(logits(model.eval()), before)
    attached.detach()
    assert torch.equal(logits(model.train()), before)


def test_a_fit_with_it_differs_and_leaves_no_hooks(part_fit, random_directions):
    naive, edited = part_fit(), part_fit(edits=[Inoculate()], directions=random_directions, optimizer=adam)
    assert not same(every_factor(edited), every_factor(naive))
    assert hooks_of(edited) == hooks_of(naive)


def test_directions_of_layers_alone_are_refused():
    layers = Directions({}, {}, {"model.layers.0": LayerDirections(torch.eye(32)[:, :3], torch.ones(3))})
    with pytest.raises(
        GrasplError, match=r"Inoculate needs directions of sites; find them with graspl\.directions\.Top"
    ):
        AttachedEdits([Inoculate()]).attach(adapted(), layers)
