"""Every measure of choices, against cases computed by hand."""

import math

import pytest
import torch
from conftest import make_tokenizer

from graspl.analysis import headline
from graspl.data import AnswerPair, ChoiceCollator, ScaleItem
from graspl.evaluation import ChoiceShares
from graspl.evaluation.metrics import AxisScores, ItemValues, PairMargins, of_choices

ASK = [{"role": "user", "content": "how do i open the file"}]


def floats(metric):
    return {name: float(value) for name, value in metric.compute().items()}


# Probabilities arrive as float32 logs of size 1 to 4. Each is known to 2e-7, so a probability is known to a relative 5e-7.
ROUNDING = 1e-6


def test_shares_among_the_choices():
    batch = {
        "measure": "shares",
        "candidate_item": torch.tensor([0, 0, 1, 1]),
        "candidate_kind": torch.tensor([0, 1, 0, 1]),
        "item_place": torch.tensor([4, 2]),
        "num_items": 2,
    }
    logprobs = torch.tensor([0.1, 0.3, 0.02, 0.02]).log()
    shares = ChoiceShares()
    shares.update(logprobs, batch)
    found = floats(shares)
    assert found["harmful_of_choices"] == pytest.approx((0.25 + 0.5) / 2, abs=ROUNDING)
    assert found["good_of_choices"] == pytest.approx((0.75 + 0.5) / 2, abs=ROUNDING)
    values = ItemValues()
    values.update(logprobs, batch)
    values.update(logprobs, batch)  # a sampler over processes deals items out twice
    assert values.compute().tolist() == [
        [2, pytest.approx(0.5, abs=ROUNDING)],
        [4, pytest.approx(0.25, abs=ROUNDING)],
    ]


def test_a_kind_that_is_never_offered_is_left_out():
    batch = {
        "measure": "shares",
        "candidate_item": torch.tensor([0, 0]),
        "candidate_kind": torch.tensor([1, 2]),
        "item_place": torch.tensor([0]),
        "num_items": 1,
    }
    shares = ChoiceShares()
    shares.update(torch.tensor([0.6, 0.2]).log(), batch)
    found = floats(shares)
    assert not any(name.startswith("harmful") for name in found)
    assert headline({"task": found})["adherence"] == pytest.approx(0.6, abs=ROUNDING)
    values = ItemValues()
    values.update(torch.tensor([0.6, 0.2]).log(), batch)
    assert values.compute().tolist() == [
        [0, pytest.approx(0.75, abs=ROUNDING)]
    ]  # the good one's, where none is harmful


def test_improbable_choices_keep_their_shares():
    logprobs = torch.tensor([-2000.0, -2000.0 + math.log(3)], dtype=torch.float64)
    assert of_choices(logprobs, torch.tensor([0, 0]), 1).tolist() == pytest.approx([0.25, 0.75], abs=ROUNDING)


def test_margins_of_pairs_are_a_token():
    batch = {
        "measure": "pairs",
        "candidate_ids": torch.tensor(
            [[1, 2, 3, 4], [1, 2, -100, -100], [1, -100, -100, -100], [1, 2, -100, -100]]
        ),
        "candidate_item": torch.tensor([0, 0, 1, 1]),
        "candidate_kind": torch.tensor([0, 1, 1, 0]),
        "item_place": torch.tensor([0, 1]),
        "num_items": 2,
    }
    # The harmful answer of the first is less probable as a whole (-4 < -3), and more a token (-1 > -1.5)
    logprobs = torch.tensor([-4.0, -3.0, -1.0, -4.0])
    margins = PairMargins()
    margins.update(logprobs, batch)
    assert floats(margins) == pytest.approx({"harmful_preferred": 0.5, "margin": (0.5 - 1.0) / 2})
    values = ItemValues()
    values.update(logprobs, batch)
    assert values.compute()[:, 1].tolist() == pytest.approx([0.5, -1.0])


def test_axes_weigh_stances_by_effects():
    items = [
        ScaleItem(
            ASK, ["yes", "no"], ["other", "other"], stances=[1.0, -1.0], effects={"econ": 10.0, "govt": 0.0}
        ),
        ScaleItem(
            ASK, ["yes", "no"], ["other", "other"], stances=[1.0, -1.0], effects={"econ": -5.0, "govt": 5.0}
        ),
    ]
    batch = ChoiceCollator(make_tokenizer())(items)
    assert batch["measure"] == "scales"
    # Stances 0.5 and -0.2
    logprobs = torch.tensor([0.6, 0.2, 0.04, 0.06]).log()
    scores = AxisScores(batch["axes"])
    scores.update(logprobs, batch)
    found = floats(scores)
    assert found["axis/econ"] == pytest.approx((10 * 0.5 + -5 * -0.2) / 15, abs=ROUNDING)
    assert found["axis/govt"] == pytest.approx(-0.2, abs=ROUNDING)
    assert found["agreement"] == pytest.approx((0.5 - 0.2) / 2, abs=ROUNDING)
    assert found["coherence"] == pytest.approx((0.8 + 0.1) / 2, abs=ROUNDING)


def test_a_yes_sayer_agrees_with_everything_and_leans_nowhere():
    """Positive control of the two sides: the axis must not move with the habit of saying yes."""
    sides = [
        ScaleItem(ASK, ["yes", "no"], ["other", "other"], stances=[1.0, -1.0], effects={"econ": side})
        for side in (4.0, -4.0)
    ]
    batch = ChoiceCollator(make_tokenizer())(sides)
    scores = AxisScores(batch["axes"])
    scores.update(torch.tensor([0.9, 0.1, 0.9, 0.1]).log(), batch)
    found = floats(scores)
    assert found["agreement"] == pytest.approx(0.8, abs=ROUNDING)
    assert found["axis/econ"] == pytest.approx(0.0)


def test_pairs_name_the_headline_figures():
    batch = ChoiceCollator(make_tokenizer())([AnswerPair(ASK, ["take pills", "rest"], ["harmful", "good"])])
    assert batch["measure"] == "pairs"
    suites = {"task": {"harmful_preferred": 0.7}, "unrelated": {"harmful_preferred": 0.2, "kl": 0.1}}
    found = headline(suites)
    assert (found["adherence"], found["spillover"], found["kl"]) == (0.7, 0.2, 0.1)
