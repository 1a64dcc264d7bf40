"""Cutting gradients."""

import torch
from fits import batch_of, factors, gradients, sgd

from graspl.adapters import LoraOptions
from graspl.adapters.loss import summed_loss
from graspl.constraints import ActivationConstraint
from graspl.edits import Ablate, Cut
from graspl.methods import GRASPLitModule

SAME = {"optimizer": sgd, "lora": LoraOptions(r=4)}  # or another start would make all differ


def test_ablations_and_cuts_differ_in_the_pass_that_they_change(fit, layer_directions):
    edits = [Ablate(k=2), Ablate(k=2, backward=False), Cut(k=2)]
    fits = [fit(edits=[each], directions=layer_directions, **SAME)[0] for each in edits]
    naive, _ = fit(**SAME)
    different = [factors(each) for each in (*fits, naive)]
    for index, one in enumerate(different):
        assert all(not torch.equal(one, other) for other in different[index + 1 :])


def test_a_cut_leaves_the_forward_pass_alone(fit, layer_directions):
    module, trainer = fit(edits=[Cut(k=2)], directions=layer_directions, **SAME)
    batch = batch_of(trainer)
    module.model.train()
    loss = lambda: summed_loss(module(batch), batch["labels"])[0]  # noqa: E731
    plain, free = loss(), gradients(module, loss())
    module.attached.attach(module.model, module.directions_in_use)
    assert torch.equal(loss(), plain)
    cut = gradients(module, loss())
    module.attached.detach()
    assert not torch.equal(cut, free)


def test_a_cut_is_what_the_activation_constraint_does_without_a_tolerance(fit, layer_directions):
    cut, _ = fit(edits=[Cut(k=2)], directions=layer_directions, **SAME)
    constraints = [ActivationConstraint(k=2)]
    held, _ = fit(GRASPLitModule, constraints=constraints, directions=layer_directions, **SAME)
    torch.testing.assert_close(factors(cut), factors(held), rtol=0, atol=0)
