"""Every part's effect is tested: with the line that has it taken away, its test fails."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from graspl import constraints, edits, penalties, starts, transforms
from graspl.edits import ablate, push
from graspl.edits.base import AttachedEdits
from graspl.methods import GRASPLitModule, LoRALitModule
from graspl.methods.step import LOSS_UNIT
from graspl.penalties import features

for room in ("penalties", "edits", "starts", "transforms"):
    sys.path.append(str(Path(__file__).parents[1] / room))


def _nothing(*_args, **_options):
    return None


def _same(tensor, *_args, **_options):
    return tensor


def _no_term(self, host, batch, logits):
    return 0.0 * sum(p.sum() for p in host.parameters() if p.requires_grad)


def _naive_step(self, batch, batch_idx):
    loss, tokens = self.answer_loss(batch)
    self.sums.add(tokens, loss, None)
    return loss * LOSS_UNIT


WITHOUT = {
    "kl": (penalties.KLPenalty, "term", _no_term, "test_kl.test_kl_is_added_a_token_at_a_time", {}),
    "penalties in a step": (
        LoRALitModule, "training_step", _naive_step, "test_kl.test_the_step_is_of_the_loss_and_the_penalty", {},
    ),
    "features": (
        penalties.FeaturePenalty, "term", _no_term, "test_strengths.test_a_penalty_keeps_the_fit_near_the_base",
        {"kind": penalties.FeaturePenalty, "weight": 50.0},
    ),
    "l2": (penalties.L2Penalty, "term", _no_term, "test_l2.test_the_l2_penalty_is_the_norm_of_the_update", {}),
    "orthogonality": (
        penalties.OrthogonalityPenalty, "term", _no_term, "test_orthogonality.test_orthogonality_lowers_the_overlap",
        {"side": "write"},
    ),
    "consistency": (
        penalties.consistency, "stream_distance", lambda a, b, c: 0.0 * next(iter(a.values())).sum(),
        "test_consistency.test_the_auxiliary_pass_is_a_step_uphill_that_the_penalty_flattens", {},
    ),
    "feature distance": (
        features, "stream_distance", lambda a, b, c: 0.0 * next(iter(a.values())).sum(),
        "test_strengths.test_a_penalty_keeps_the_fit_near_the_base",
        {"kind": penalties.FeaturePenalty, "weight": 50.0},
    ),
    "ablation": (
        ablate, "ablated", _same, "test_ablate.test_the_forward_pass_in_training_is_the_hand_written_ablation", {},
    ),
    "ablation without backward": (
        edits.Ablate, "changed", lambda self, r, D: ablate.ablated(r, D),
        "test_ablate.test_without_backward_gradients_come_through", {"backward": False},
    ),
    "cut": (
        edits.Cut, "changed", lambda self, r, D: r,
        "test_cut.test_ablations_and_cuts_differ_in_the_pass_that_they_change", {},
    ),
    "ablation at inference": (
        AttachedEdits, "attach", _nothing,
        "test_ablate.test_an_ablation_at_inference_leaves_training_and_the_base_model_alone", {},
    ),
    "steering at inference": (
        edits.Push, "changed", lambda self, r, D: r, "test_push.test_steering_at_inference_pushes_away", {},
    ),
    "a push": (push, "pushed", _same, "test_push.test_preventative_steering_pushes_while_training_alone", {}),
    "a push in training": (
        AttachedEdits, "attach", _nothing, "test_push.test_preventative_steering_pushes_while_training_alone", {},
    ),
    "scale": (
        transforms.Scale, "apply", _nothing, "test_scale.test_a_scaled_update_lies_between_base_and_fine_tune", {},
    ),
    "balance": (
        transforms.Balance, "apply", transforms.Scale.apply,
        "test_scale.test_a_balanced_update_moves_every_site_equally_far", {},
    ),
    "truncate": (
        transforms.Truncate, "apply", _nothing, "test_truncate.test_a_spectrum_is_cut_at_one_end", {"part": "tail"},
    ),
    "safe_lora": (
        transforms.SafeLoRA, "apply", _nothing, "test_safe_lora.test_safe_lora_projects_below_its_threshold",
        {"threshold": 1.1},
    ),
    "subtract": (
        transforms.Subtract, "apply", _nothing,
        "test_subtract.test_direct_subtraction_trains_naively_and_saves_without_the_directions", {},
    ),
    "grasp and kl": (
        constraints.Held, "suspended", lambda self: AttachedEdits([]).off(),
        "test_kl.test_grasp_with_divergence_is_grasp_and_more", {},
    ),
    "a start": (
        starts.DirectionsStart, "begin", _nothing,
        "test_directions_start.test_the_update_reads_only_the_given_directions", {},
    ),
    "unedited": (
        GRASPLitModule, "unedited", lambda self: AttachedEdits([]).off(),
        "test_kl.test_grasp_with_divergence_is_grasp_and_more", {},
    ),
}  # fmt: skip
"""By effect: where it is, what stands there without it, and the test that sees it."""


@pytest.mark.parametrize("effect", WITHOUT)
def test_without_the_effect_its_test_fails(effect, request, monkeypatch):
    place, name, without, test, options = WITHOUT[effect]
    module, function = test.split(".")
    check = getattr(import_module(module), function)
    wanted = check.__code__.co_varnames[: check.__code__.co_argcount]
    arguments = {each: options[each] if each in options else request.getfixturevalue(each) for each in wanted}
    monkeypatch.setattr(place, name, without)
    with pytest.raises(AssertionError):
        check(**arguments)
