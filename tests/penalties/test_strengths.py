"""What penalties do to a fit, by figures."""

import pytest
import torch
from fits import adam, answers_of, batch_of, weighed

from graspl.methods import LoRALitModule
from graspl.penalties import (
    FeaturePenalty,
    KLPenalty,
    L2Penalty,
)

EFFECTS = [(KLPenalty, 50.0), (FeaturePenalty, 50.0), (L2Penalty, 5.0)]


@pytest.mark.parametrize(("kind", "weight"), EFFECTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_penalty_keeps_the_fit_near_the_base(fit, kind, weight):
    """What each penalty claims: the thing that it penalises is smaller than in the naive fit."""

    def measured(module, trainer):
        module.penalties = [kind(weight=1.0)]
        batch = batch_of(trainer)
        for each in module.penalties:
            each.begin(module)
        with torch.no_grad():
            value = float(module.penalties[0].term(module, batch, answers_of(module, batch)))
        module.penalties[0].end()
        return value

    steps = {"max_steps": 12}
    naive = measured(*fit(optimizer=adam, lightning=steps))
    held = measured(*fit(optimizer=adam, penalties=[kind(weight=weight)], lightning=steps))
    assert held < 0.7 * naive


def test_penalties_add_up(fit):
    """The gradient of a step with two penalties is that of their weighed sum."""
    module, trainer = fit(optimizer=adam, penalties=[KLPenalty(weight=3.0), L2Penalty(weight=2.0)])
    batch = batch_of(trainer)
    both = weighed(module, batch, answers_of(module, batch))
    logits = answers_of(module, batch)
    terms = [float(each.term(module, batch, logits).detach()) for each in module.penalties]
    assert min(terms) > 0
    assert float(both.detach()) == pytest.approx(3.0 * terms[0] + 2.0 * terms[1], rel=1e-5)
    assert float(trainer.callback_metrics["train/extra_loss"]) > 0


def test_a_penalty_is_not_shared_between_modules(model_folder):
    penalty = KLPenalty()
    first, second = (LoRALitModule(base_model=str(model_folder()), penalties=[penalty]) for _ in range(2))
    assert first.penalties[0] is not second.penalties[0]
