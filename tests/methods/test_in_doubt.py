"""Constraints that are held only where the start does not predict that it is enough alone."""

import re

import pytest
import torch
from fits import adam, every_factor, same

import graspl.starts.response as response
from graspl.constraints import ResidualConstraint
from graspl.errors import GrasplError
from graspl.methods import GRASPLitModule, ThrowAwayFit
from graspl.penalties import OrthogonalityPenalty
from graspl.starts import NullSpaceStart, PlainStart

GIVEN = {"kind": GRASPLitModule, "optimizer": adam, "constraints": [ResidualConstraint(k=2)]}


@pytest.fixture
def fit(part_fit, monkeypatch):
    """Return a function that fits with both thresholds far below, or far above, what a tiny model reads."""

    def run(silent, **options):
        monkeypatch.setattr(response, "HOLDS", 1e9 if silent else 0.0)
        monkeypatch.setattr(response, "FAILS", 2e9 if silent else 0.0)
        return part_fit(**{**GIVEN, "start": NullSpaceStart(), **options})

    return run


def test_a_null_space_that_is_likely_to_hold_is_trained_without_constraints(fit, part_fit):
    found = fit(silent=True, constrain="in_doubt")
    assert found.found_directions is None
    alone = part_fit(start=NullSpaceStart(), optimizer=adam)
    assert same(every_factor(found), every_factor(alone))


def test_one_in_doubt_is_constrained_as_ever(fit):
    found = fit(silent=False, constrain="in_doubt")
    always = fit(silent=False, constrain="always", start=NullSpaceStart(train_A=True))
    assert same(every_factor(found), every_factor(always))
    D, other = (module.found_directions.layers for module in (found, always))
    assert all(torch.equal(D[name].D, other[name].D) for name in D)
    assert not same(every_factor(found), every_factor(fit(silent=True, constrain="in_doubt")))


def test_A_is_trained_only_in_doubt(fit):
    """With weight decay, which moves whatever the optimizer does not pass over."""
    decaying = {
        "optimizer": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.5),
        "constrain": "in_doubt",
    }
    for silent in (True, False):
        begun, trained = (fit(silent, max_steps=steps, **decaying) for steps in (1, 3))
        for before, after in zip(begun.sites, trained.sites, strict=True):
            assert torch.equal(before.A, after.A) is silent
            assert after.B.any()
    kept = fit(True, max_steps=3, **decaying | {"start": NullSpaceStart(train_A=True)})
    assert not any(
        torch.equal(before.A, after.A) for before, after in zip(begun.sites, kept.sites, strict=True)
    )


def test_a_null_space_in_doubt_is_constrained_as_asked(fit, monkeypatch, part_fit):
    monkeypatch.setattr(response, "HOLDS", 0.0)
    monkeypatch.setattr(response, "FAILS", 1e9)
    found = {
        when: part_fit(**GIVEN, start=NullSpaceStart(), constrain=when) for when in ("in_doubt", "unlikely")
    }
    assert {module.start.outlook for module in found.values()} == {"in doubt"}
    assert found["in_doubt"].found_directions is not None
    assert found["unlikely"].found_directions is None
    alone = part_fit(start=NullSpaceStart(), optimizer=adam)
    assert same(every_factor(found["unlikely"]), every_factor(alone))
    assert not same(every_factor(found["in_doubt"]), every_factor(alone))


def test_one_that_is_not_likely_to_hold_is_constrained_where_only_that_asks_for_it(fit):
    found = fit(silent=False, constrain="unlikely")
    assert same(every_factor(found), every_factor(fit(silent=False, constrain="in_doubt")))


def test_the_text_that_is_read_most_decides(fit, monkeypatch):
    module = fit(silent=True, start=NullSpaceStart(own_text=3), constrain="in_doubt")
    low, high = sorted(each.typical for each in module.start.read.values())
    assert low < high
    monkeypatch.setattr(response, "HOLDS", (low + high) / 2)
    assert module.start.outlook == "in doubt"


@pytest.mark.parametrize("silent", [True, False])
def test_a_fit_that_goes_on_keeps_what_it_decided(silent, fit, tmp_path):
    checkpoint = tmp_path / "whole.ckpt"
    whole = fit(silent, constrain="in_doubt", max_steps=4)
    first = fit(silent, constrain="in_doubt", max_steps=2)
    first.trainer.save_checkpoint(checkpoint)
    on = fit(silent, constrain="in_doubt", max_steps=4, ckpt_path=str(checkpoint))
    assert (on.found_directions is None) is silent
    assert same(every_factor(on), every_factor(whole))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": PlainStart()}, "PlainStart predicts nothing; use graspl.starts.NullSpaceStart"),
        ({"start": NullSpaceStart(kind="random")}, "NullSpaceStart predicts nothing"),
        ({"penalties": [OrthogonalityPenalty(weight=1.0)], "directions": ThrowAwayFit()}, "may find none"),
    ],
)
def test_what_cannot_be_in_doubt_is_refused(options, said, fit):
    with pytest.raises(GrasplError, match=rf"^model\.constrain: .*{re.escape(said)}"):
        fit(silent=True, constrain="in_doubt", **options)


def test_directions_of_a_file_are_held_in_any_case(fit, random_directions):
    given = {"directions": str(random_directions)}
    asked = fit(silent=True, constrain="in_doubt", **given)
    always = fit(silent=True, constrain="always", start=NullSpaceStart(train_A=True), **given)
    assert same(every_factor(asked), every_factor(always))
    assert not same(every_factor(asked), every_factor(fit(silent=True, constrain="in_doubt")))
