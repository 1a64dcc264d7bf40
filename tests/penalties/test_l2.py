"""The L2 penalty."""

import pytest
import torch
from fits import adam, weighed

from graspl.penalties import L2Penalty


def test_the_l2_penalty_is_the_norm_of_the_update(fit):
    module, trainer = fit(optimizer=adam, penalties=[L2Penalty(weight=2.0)])
    dense = sum((site.scaling * site.B @ site.A).square().sum() for site in module.sites)
    found = float(weighed(module, {}, torch.empty(0)).detach())
    assert found == pytest.approx(2.0 * float(dense.detach()), rel=1e-5)
    assert trainer.global_step == 3
