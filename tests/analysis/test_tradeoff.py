"""Curves of adherence against spill-over, and what is read off them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graspl.analysis import curve, figures_at


def log(points):
    return [{"step": float(step), "val/adherence": x, "val/spillover": y} for step, x, y in points]


def spillover_at(rows, level):
    return figures_at(rows, level, ("spillover",))["spillover"]


def test_spillover_is_read_off_where_the_level_is_first_reached():
    rows = log([(0, 0.2, 0.1), (1, 0.8, 0.4), (2, 0.6, 0.9), (3, 0.9, 0.5)])
    assert spillover_at(rows, 0.5) == pytest.approx(0.25)
    assert spillover_at(rows, 0.8) == pytest.approx(0.4)
    assert spillover_at(rows, 0.1) == 0.1
    assert spillover_at(rows, 0.95) is None
    assert spillover_at([], 0.5) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
def test_a_matched_spillover_lies_between_its_neighbours(values, level):
    found = spillover_at(log([(index, *value) for index, value in enumerate(values)]), level)
    reached = [index for index, (adherence, _) in enumerate(values) if adherence >= level]
    assert (found is None) == (not reached)
    if reached:
        near = [spillover for _, spillover in values[max(0, reached[0] - 1) : reached[0] + 1]]
        assert min(near) - 1e-9 <= found <= max(near) + 1e-9


def test_rows_without_a_validation_are_no_points():
    rows = [{"step": 1.0, "train/loss": 2.0}, *log([(3, 0.7, 0.3), (2, 0.5, 0.2)])]
    assert curve(rows) == [(0.5, 0.2), (0.7, 0.3)]
