"""Ablation, in training and at inference."""

import pytest
import torch
from conftest import CHAT_ROWS
from fits import adam, attached, batch_of, factors

from graspl.activations import NaturalDirections
from graspl.adapters import decoder_layers
from graspl.adapters.streams import edit_streams
from graspl.directions import Directions
from graspl.edits import Ablate
from graspl.errors import GrasplError
from graspl.methods import LoRALitModule, ThrowAwayFit

CHECKS = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 4}


def by_hand(module, file):
    """Project the streams off directions with hooks of the test's own."""
    given = Directions.load(file)

    def project(name, stream):
        D = given.layers[name].D[:, :2]
        return stream @ (torch.eye(len(D)) - D @ D.mT)

    return edit_streams(decoder_layers(module.model), project)


def test_the_forward_pass_in_training_is_the_hand_written_ablation(fit, layer_directions):
    module, trainer = fit(optimizer=adam, directions=layer_directions, edits=[Ablate(k=2)])
    batch = batch_of(trainer)
    module.model.train()
    hooks = attached(module)
    ours = module(batch)
    hooks.detach()
    plain = module(batch)
    with by_hand(module, layer_directions):
        expected = module(batch)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    assert (ours - plain).abs().max() > 1e-4  # positive control: there was something to ablate


def test_nothing_is_ablated_in_evaluation_or_in_the_base_model(fit, layer_directions):
    module, trainer = fit(optimizer=adam, directions=layer_directions, edits=[Ablate(k=2)])
    batch = batch_of(trainer)
    module.model.eval()
    plain, base = module(batch), module.base_forward(batch)
    hooks = attached(module)
    assert torch.equal(module(batch), plain)
    module.model.train()
    assert not torch.equal(module(batch), plain)
    assert torch.equal(module.base_forward(batch), base)
    hooks.detach()


@pytest.mark.parametrize("backward", [True, False])
def test_without_backward_gradients_come_through(backward):
    generator = torch.Generator().manual_seed(0)
    D = torch.linalg.qr(torch.randn(6, 2, generator=generator))[0]
    weight = torch.randn(3, 6, generator=generator)
    stream = torch.randn(3, 6, generator=generator, requires_grad=True)
    out = Ablate(backward=backward).changed(stream, D)
    assert (out @ D).abs().max() < 1e-6
    (out * weight).sum().backward()
    torch.testing.assert_close(stream.grad, weight - weight @ D @ D.mT if backward else weight)


def test_an_ablation_at_inference_leaves_training_and_the_base_model_alone(fit, layer_directions):
    naive, plain = fit(optimizer=adam, lightning=CHECKS)
    edits = [Ablate(during="inference")]
    module, trainer = fit(optimizer=adam, edits=edits, directions=layer_directions, lightning=CHECKS)
    assert torch.equal(factors(naive), factors(module))
    ours, theirs = (each.callback_metrics for each in (trainer, plain))
    assert float(ours["val/task/base_loss"]) == pytest.approx(float(theirs["val/task/base_loss"]), abs=1e-7)
    assert abs(float(ours["val/task/loss"]) - float(theirs["val/task/loss"])) > 1e-5
    batch = batch_of(trainer)
    module.model.eval()
    plain_logits = module(batch)
    with by_hand(module, layer_directions):
        expected = module(batch)
    hooks = attached(module)
    torch.testing.assert_close(module(batch), expected, atol=1e-6, rtol=1e-6)
    hooks.detach()
    assert torch.equal(module(batch), plain_logits)  # no hooks are left


def test_a_validation_without_a_directions_file_is_refused(model_folder):
    edits = [Ablate(during="inference")]
    module = LoRALitModule(base_model=str(model_folder()), directions=ThrowAwayFit(), edits=edits)
    with pytest.raises(GrasplError, match="Ablate needs a file in validation"):
        module.setup("validate")


def test_an_ablation_at_inference_finds_its_directions_within_the_fit(fit, write_rows):
    checks = CHECKS | {"num_sanity_val_steps": 1}
    naive, plain = fit(optimizer=adam, lightning=checks)
    module, trainer = fit(
        optimizer=adam, edits=[Ablate(k=1, during="inference")], lightning=checks,
        directions=ThrowAwayFit(NaturalDirections(k=2)), data={"text": str(write_rows(CHAT_ROWS, "text.jsonl"))},
    )  # fmt: skip
    assert torch.equal(factors(naive), factors(module))
    ours, theirs = (float(each.callback_metrics["val/task/loss"]) for each in (trainer, plain))
    assert abs(ours - theirs) > 1e-5


def test_gradients_let_through_at_inference_are_refused():
    with pytest.raises(GrasplError, match=r"Ablate\.backward"):
        Ablate(during="inference", backward=False)
