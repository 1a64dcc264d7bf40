"""Every rival's effect is tested: with the line that has it taken away, its test fails."""

import pytest
import test_one_fit
import test_rivals as rivals
import torch
from test_one_fit import fit as one_fit  # noqa: F401 - a fixture
from test_rivals import finished, layer_directions, signed_directions, unaligned  # noqa: F401 - fixtures
from test_training import directions, fit  # noqa: F401 - fixtures

from graspl import constraints, methods
from graspl.constraints import ablation, addition, stream


def _nothing(*_args, **_options):
    return None


def _same(tensor, *_args, **_options):
    return tensor


def _no_divergence(self, batch, logits):
    return 0.0 * logits.sum()


WITHOUT = {
    "kl": (methods.KLLitModule, "extra_loss", _no_divergence, "test_kl_is_added_a_token_at_a_time", {}),
    "features": (
        methods.FeatureDistanceLitModule, "extra_loss", _no_divergence, "test_a_penalty_keeps_the_fit_near_the_base",
        {"kind": methods.FeatureDistanceLitModule, "weight": 50.0},
    ),
    "l2": (
        methods.L2ToStartLitModule, "extra_loss", lambda *_: torch.zeros(()), "test_the_l2_penalty_is_the_norm_of_the_update",
        {},
    ),
    "orthogonality": (
        methods.OrthogonalityLitModule, "extra_loss", _nothing, "test_orthogonality_lowers_the_overlap", {"side": "write"},
    ),
    "consistency": (
        methods.UndesirableConsistencyLitModule, "distance", lambda self, a, b, c: 0.0 * next(iter(a.values())).sum(),
        "test_the_auxiliary_pass_is_a_step_uphill_that_the_penalty_flattens", {},
    ),
    "caft": (ablation, "ablated", _same, "test_cafts_forward_pass_is_the_hand_written_ablation", {}),
    "caft modes": (
        constraints.ActivationConstraint, "attach", _nothing, "test_cafts_modes_differ_in_the_pass_that_they_cut", {},
    ),
    "ablation at inference": (
        methods.InferenceAblationLitModule, "changed", lambda self, r, D: r,
        "test_an_ablation_at_inference_leaves_training_and_the_base_model_alone", {},
    ),
    "steering at inference": (
        methods.InferenceSteeringLitModule, "changed", lambda self, r, D: r, "test_steering_at_inference_pushes_away", {},
    ),
    "preventative": (addition, "pushed", _same, "test_a_push_is_a_share_of_the_streams_length", {}),
    "preventative in training": (
        stream.StreamConstraint, "_hook", lambda self, D: lambda *_: None,
        "test_preventative_steering_pushes_while_training_alone", {},
    ),
    "wise_ft": (
        methods.ScaledLitModule, "finish", _nothing, "test_a_scaled_update_lies_between_base_and_fine_tune", {},
    ),
    "balanced": (
        methods.BalancedLitModule, "finish", methods.ScaledLitModule.finish,
        "test_a_balanced_update_moves_every_site_equally_far", {},
    ),
    "spectral": (methods.SpectralLitModule, "finish", _nothing, "test_a_spectrum_is_cut_at_one_end", {"part": "tail"}),
    "safe_lora": (
        methods.SafeLoRALitModule, "finish", _nothing, "test_safe_lora_projects_below_its_threshold", {"threshold": 1.1},
    ),
    "grasp_kl": (
        constraints.ActivationConstraint, "suspended", constraints.Constraint.suspended,
        "test_grasp_with_divergence_is_grasp_and_more", {},
    ),
}  # fmt: skip
"""By rival: where its effect is, what stands there without it, and the test that sees it."""


@pytest.mark.parametrize("rival", WITHOUT)
def test_without_its_effect_a_rivals_test_fails(rival, request, monkeypatch):
    place, name, without, test, options = WITHOUT[rival]
    check = getattr(rivals, test)
    wanted = check.__code__.co_varnames[: check.__code__.co_argcount]
    arguments = {each: options[each] if each in options else request.getfixturevalue(each) for each in wanted}
    monkeypatch.setattr(place, name, without)
    with pytest.raises(AssertionError):
        check(**arguments)


def test_without_its_effect_the_test_of_direct_subtraction_fails(one_fit, monkeypatch):  # noqa: F811
    monkeypatch.setattr(methods.SubtractionLitModule, "finish", _nothing)
    with pytest.raises(AssertionError):
        test_one_fit.test_direct_subtraction_trains_naively_and_saves_without_the_directions(one_fit)
