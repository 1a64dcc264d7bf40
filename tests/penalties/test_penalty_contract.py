"""What every penalty must do; a new one is added to PENALTIES and gets all of these."""

import pytest
import torch
from fits import every_factor, hooks_of, kinds_of, parts, same

import graspl.penalties
from graspl.errors import GrasplError
from graspl.penalties import (
    ConsistencyPenalty,
    DriftPenalty,
    FeaturePenalty,
    KLPenalty,
    L2Penalty,
    OrthogonalityPenalty,
    Penalty,
    SpectralPenalty,
)

PENALTIES = [
    KLPenalty,
    lambda **options: KLPenalty(rows="text", rows_per_step=2, **options),
    lambda **options: KLPenalty(rows="own_text", rows_per_step=2, own_text=3, **options),
    FeaturePenalty,
    ConsistencyPenalty,
    L2Penalty,
    OrthogonalityPenalty,
    SpectralPenalty,
    DriftPenalty,
]


@pytest.fixture
def options(random_directions):
    """Return what a fit needs besides the penalty."""
    return lambda penalty: {"directions": random_directions} if penalty.needs_directions else {}


def test_every_penalty_is_in_the_list():
    assert {type(make()) for make in parts(PENALTIES)} >= kinds_of(graspl.penalties, Penalty)


@pytest.mark.parametrize("make", parts(PENALTIES))
def test_a_weight_of_zero_trains_without_it_bit_for_bit(make, part_fit, options):
    penalty = make(weight=0.0)
    assert same(every_factor(part_fit(penalties=[penalty], **options(penalty))), every_factor(part_fit()))


@pytest.mark.parametrize("make", parts(PENALTIES))
def test_a_weight_changes_the_fit_and_makes_the_term_smaller(make, part_fit, options):
    strong, none = make(weight=50.0), make(weight=1e-9)
    for each in (strong, none):
        each.seen = []
        _remember(each)
    held = part_fit(penalties=[strong], max_steps=8, **options(strong))
    free = part_fit(penalties=[none], max_steps=8, **options(none))
    assert not same(every_factor(held), every_factor(free))
    ours, theirs = (module.penalties[0].seen for module in (held, free))
    assert all(value.ndim == 0 and torch.isfinite(value) and value >= 0 for value in (*ours, *theirs))
    assert ours[-1] < theirs[-1]


def _remember(penalty):
    """Note every term of a penalty."""
    kind = type(penalty)

    class Remembering(kind):
        def term(self, host, batch, logits):
            value = super().term(host, batch, logits)
            self.seen.append(value.detach())
            return value

    penalty.__class__ = Remembering


@pytest.mark.parametrize("make", parts(PENALTIES))
def test_nothing_is_left_on_the_model(make, part_fit, options):
    penalty = make()
    assert hooks_of(part_fit(penalties=[penalty], **options(penalty))) == hooks_of(part_fit())


@pytest.mark.parametrize("make", parts(PENALTIES))
def test_two_penalties_add_up(make, part_fit, options):
    penalty = make()
    both = part_fit(penalties=[penalty, L2Penalty(weight=1.0)], **options(penalty))
    assert not same(every_factor(both), every_factor(part_fit(penalties=[penalty], **options(penalty))))


@pytest.mark.parametrize("make", parts(PENALTIES))
def test_a_weight_below_zero_is_refused(make):
    with pytest.raises(GrasplError, match=r"weight: -1.0 is below 0"):
        make(weight=-1.0)
