"""The finished update scaled, and balanced over sites."""

import pytest
import torch
from fits import adam, factors
from transformers import AutoModelForCausalLM

from graspl.transforms import Balance, Scale


def test_a_scaled_update_lies_between_base_and_fine_tune(finished):
    naive, saved = finished(Scale(share=0.25))
    for name, update in naive.items():
        torch.testing.assert_close(saved[name], 0.25 * update)


def test_a_balanced_update_moves_every_site_equally_far(finished, model_folder):
    naive, saved = finished(Balance(share=0.5))
    weights = dict(AutoModelForCausalLM.from_pretrained(model_folder()).named_parameters())
    size = {name: weights[f"{name}.weight"].norm() for name in naive}
    moved = torch.stack([naive[name].norm() / size[name] for name in naive]).detach()
    rms = moved.square().mean().sqrt()
    assert moved.max() > 1.1 * moved.min()  # positive control: they were not equal before
    for name, update in saved.items():
        torch.testing.assert_close(update.norm() / size[name], 0.5 * rms, atol=1e-6, rtol=1e-4)
        cosine = torch.nn.functional.cosine_similarity(update.flatten(), naive[name].flatten(), dim=0)
        assert cosine > 0.9999


def test_a_finished_transform_is_validated_and_put_back(fit):
    """Within a fit the curve is that of the transformed update; training goes on from the untouched one."""
    checks = {"max_steps": 4, "limit_val_batches": 1.0, "val_check_interval": 2}
    naive, plain = fit(optimizer=adam, lightning=checks)
    module, trainer = fit(optimizer=adam, transforms=[Scale(share=0.0)], lightning=checks)
    assert torch.equal(factors(naive), factors(module))
    assert float(trainer.callback_metrics["val/task/kl"]) == pytest.approx(0.0, abs=1e-7)
    assert float(plain.callback_metrics["val/task/kl"]) > 1e-6
