"""Steering: in training against what is learnt, at inference away from the factor."""

import pytest
import torch
from fits import adam, attached, batch_of, factors

from graspl.adapters import LoraOptions, decoder_layers
from graspl.adapters.streams import edit_streams
from graspl.directions import Directions
from graspl.edits import Push
from graspl.edits.push import pushed
from graspl.errors import GrasplError


def test_steering_at_inference_pushes_away(fit, signed_directions):
    checks = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 4}
    steered = {"optimizer": adam, "lightning": checks, "directions": signed_directions}
    naive, plain = fit(optimizer=adam, lightning=checks)
    none, still = fit(edits=[Push(0.0, during="inference")], **steered)
    module, trainer = fit(edits=[Push(-0.3, during="inference")], **steered)
    assert torch.equal(factors(naive), factors(none))
    assert torch.equal(factors(naive), factors(module))
    losses = [float(each.callback_metrics["val/task/loss"]) for each in (plain, still, trainer)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-7)
    assert abs(losses[2] - losses[0]) > 1e-5
    # By hand: away from the first direction, by a share of the stream's length
    stream, D = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1.0], [0.0]])
    found = module.edits[0].changed(stream, D)
    torch.testing.assert_close(found, torch.tensor([[[3.0 - 0.3 * 5, 4.0]]]))


def test_preventative_steering_pushes_while_training_alone(fit, signed_directions):
    same = {"optimizer": adam, "lora": LoraOptions(r=4, lora_alpha=8)}
    steered = same | {"directions": signed_directions}
    naive, _ = fit(**same)
    none, _ = fit(edits=[Push(0.0)], **steered)
    assert torch.equal(factors(naive), factors(none))
    module, trainer = fit(edits=[Push(0.5)], **steered)
    assert not torch.equal(factors(naive), factors(module))
    batch = batch_of(trainer)
    module.model.eval()
    plain = module(batch)
    hooks = attached(module)
    assert torch.equal(module(batch), plain)
    module.model.train()
    assert (module(batch) - plain).abs().max() > 1e-4
    hooks.detach()


@pytest.mark.parametrize("during", ["training", "inference", "both"])
def test_directions_without_a_sign_are_refused(fit, layer_directions, during):
    with pytest.raises(GrasplError, match="LayerSingular gives directions without a sign"):
        fit(edits=[Push(0.1, during=during)], directions=layer_directions)


def test_a_push_is_a_share_of_the_streams_length():
    stream = torch.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True)
    found = pushed(stream, torch.tensor([[1.0], [0.0]]), 0.1)
    torch.testing.assert_close(found.detach(), torch.tensor([[3.5, 4.0], [0.2, 2.0]]))
    assert torch.equal(Push(0.1).changed(stream, torch.tensor([[1.0], [0.0]])), found)


def test_a_mean_shift_has_the_sign_of_the_shift(fit, signed_directions):
    module, trainer = fit(optimizer=adam)
    given, batch = Directions.load(signed_directions), batch_of(trainer)
    module.model.eval()
    streams = []
    for run in (module, module.base_forward):
        seen = {}
        with edit_streams(decoder_layers(module.model), lambda name, r, seen=seen: seen.update({name: r})):
            run(batch)
        streams.append(seen)
    places = torch.nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    for name, layer in given.layers.items():
        moved = (streams[0][name] - streams[1][name])[places].mean(0)
        assert float((moved @ layer.D[:, 0]).detach()) > 0
