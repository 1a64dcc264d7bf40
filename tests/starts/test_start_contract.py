"""What every start must do; a new one is added to STARTS and gets all of these."""

from functools import partial

import pytest
import torch
from fits import every_factor, kinds_of, parts, same

import graspl.starts
from graspl.starts import DirectionsStart, FrozenStart, NullSpaceStart, PlainStart, Start

STARTS = [
    PlainStart,
    FrozenStart,
    DirectionsStart,
    NullSpaceStart,
    lambda **options: NullSpaceStart(kind="gradient", **options),
    lambda **options: NullSpaceStart(kind="null", **options),
    lambda **options: NullSpaceStart(kind="difference", **options),
    lambda **options: NullSpaceStart(kind="random", **options),
    lambda **options: NullSpaceStart(widest=8, tokens=12, **options),
]


@pytest.fixture
def begun(part_fit, random_directions):
    """Return a function that fits with a start; without a step's effect where the learning rate is zero."""

    def run(start, *, lr=1e-2, **options):
        given = {"directions": random_directions} if start.needs_directions else {}
        return part_fit(
            start=start, optimizer=lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=0.0), **given, **options
        )

    return run


def test_every_start_is_in_the_list():
    assert {type(make()) for make in parts(STARTS)} >= kinds_of(graspl.starts, Start)


def each_way(makes):
    """Return starts with A trained and with A frozen; those without the option only as they are."""
    for make in parts(makes):
        if make in (PlainStart, FrozenStart):
            yield pytest.param(make, make().train_A, id=make.__name__)
        else:
            for train_A in (True, False):
                made = partial(make, train_A=train_A)
                yield pytest.param(made, train_A, id=f"{make.__name__}-{train_A}")


@pytest.mark.parametrize(("make", "train_A"), list(each_way(STARTS)))
def test_the_model_begins_as_the_base_model(make, train_A, begun):
    module = begun(make(), lr=0.0)
    assert all(not site.B.any() for site in module.sites)
    assert all(torch.linalg.matrix_rank(site.A.detach()) == site.A.shape[0] for site in module.sites)


@pytest.mark.parametrize(("make", "train_A"), list(each_way(STARTS)))
def test_A_moves_only_where_it_is_trained_and_B_always(make, train_A, begun):
    start, trained = begun(make(), lr=0.0), begun(make())
    for before, after in zip(start.sites, trained.sites, strict=True):
        assert torch.equal(before.A, after.A) != train_A
        assert after.B.any()


@pytest.mark.parametrize("make", parts(STARTS))
def test_it_begins_the_same_way_every_time(make, begun):
    assert same(every_factor(begun(make())), every_factor(begun(make())))
