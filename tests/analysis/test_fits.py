"""Figures over seeds, against scipy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from graspl.analysis.fits import Cost, FitLog, at_level, over_tasks
from graspl.analysis.intervals import summarise
from graspl.analysis.tradeoff import area_under, figures_at, relative_levels
from graspl.errors import GrasplError


def log(points, **more):
    return [
        {"step": float(step), "val/adherence": x, "val/spillover": y, "val/update_norm": step / 10, **more}
        for step, x, y in points
    ]


def logs(rows, naive_steps=None, costs=None):
    """Return `FitLog`s from logged rows by method and seed."""
    return {
        method: {
            seed: FitLog(
                each,
                (naive_steps or {}).get(method, {}).get(seed, 0),
                (costs or {}).get(method, {}).get(seed),
            )
            for seed, each in by_seed.items()
        }
        for method, by_seed in rows.items()
    }


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_the_interval_is_students(values):
    found = summarise(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if found.sd > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


def test_few_seeds_have_no_interval():
    assert summarise([None, 0.5, None]) == (1, 0.5, None, None, None)
    assert summarise([None]) == (0, None, None, None, None)


def test_figures_are_read_between_validations():
    rows = log([(9, 0.2, 0.1), (19, 0.6, 0.3), (29, 0.9, 0.6)])
    assert figures_at(rows, 0.75, ("spillover", "step")) == {
        "spillover": pytest.approx(0.45),
        "step": pytest.approx(24),
    }
    assert figures_at(rows, 0.95, ("spillover",)) == {"spillover": None}
    assert figures_at(rows, 0.5, ("coherence",)) == {"coherence": None}
    assert figures_at(rows, 2.4, ("adherence",), by="update_norm")["adherence"] == pytest.approx(0.75)


def test_methods_are_compared_at_a_level_by_hand():
    naive = {seed: log([(9, 0.5, 0.2), (19, 1.0, 0.6)]) for seed in (0, 1)}
    ours = {0: log([(9, 0.5, 0.1), (29, 1.0, 0.2)]), 1: log([(9, 0.5, 0.1), (29, 0.8, 0.2)])}
    found = at_level(logs({"naive": naive, "ours": ours}), "naive", {"spillover": 0.1}, 0.9)
    first = found["ours"]["seeds"][0]
    assert found["naive"]["spillover"]["mean"] == pytest.approx(0.52)
    assert first["spillover"] == pytest.approx(0.18)
    assert first["removed"] == pytest.approx(1 - 0.08 / 0.42)
    assert first["step"] == pytest.approx(26)  # the log counts from 0
    assert first["step_ratio"] == pytest.approx(26 / 18)
    # an update of norm 2.5 the naive run never has, but at 1.5 it would stand at adherence 0.8
    assert first["norm_matched/adherence"] is None
    assert found["ours"]["spillover"]["n"] == 1
    assert found["ours"]["seeds"][1]["removed"] is None


def test_what_is_less_than_the_reference_and_what_changed_since_the_base_model():
    naive = {0: log([(9, 0.5, 0.2), (19, 1.0, 0.6)])}
    ours = {0: log([(9, 0.5, 0.1), (29, 1.0, 0.2)], **{"val/coherence": 0.97})}
    control = {0: log([(9, 0.5, 0.2), (29, 1.0, 0.35)])}
    base = {"spillover": 0.1, "coherence": 0.99}
    found = at_level(
        logs({"naive": naive, "ours": ours, "control": control}), "naive", base, 0.9, reference="ours"
    )
    assert found["control"]["behind"]["mean"] == pytest.approx((0.32 - 0.18) / 0.42)
    assert found["ours"]["behind"]["mean"] == 0
    assert found["ours"]["excess"]["mean"] == pytest.approx(0.08)
    assert found["ours"]["coherence_change"]["mean"] == pytest.approx(-0.02)
    assert found["control"]["coherence_change"]["mean"] is None


def test_tasks_are_what_is_counted():
    first = {0: log([(0, 0.5, 0.2), (9, 1.0, 0.2)]), 1: log([(0, 0.5, 0.4), (9, 1.0, 0.4)])}
    second = {0: log([(0, 0.5, 0.7), (9, 1.0, 0.7)]), 1: log([(0, 0.5, 0.9), (9, 0.8, 0.9)])}
    third = {0: log([(0, 0.5, 0.9), (9, 0.8, 0.9)])}
    by_task = {
        name: at_level(logs({"m": rows}), "m", {"spillover": 0.1}, 0.9)
        for name, rows in (("a", first), ("b", second), ("c", third))
    }
    found = over_tasks(by_task)["m"]
    # Means of 0.3 and 0.7, not of 0.2, 0.4 and 0.7
    assert found["spillover"]["mean"] == pytest.approx(0.5)
    assert found["spillover"]["n"] == 2
    assert (found["reached"], found["fits"]) == (3, 5)
    assert found["tasks"]["c"]["spillover"] is None


def test_norm_matching_reads_the_naive_run_at_the_same_size():
    naive = {0: log([(10, 0.5, 0.2), (20, 1.0, 0.6)])}
    ours = {0: log([(5, 0.5, 0.1), (15, 0.9, 0.2)])}
    seed = at_level(logs({"naive": naive, "ours": ours}), "naive", {"spillover": 0.1}, 0.9)["ours"]["seeds"][
        0
    ]
    assert seed["norm_matched/adherence"] == pytest.approx(0.75)
    assert seed["norm_matched/spillover"] == pytest.approx(0.4)


def test_the_area_is_the_mean_over_the_range():
    rows = log([(0, 0.0, 0.0), (9, 1.0, 1.0)])
    assert area_under(rows, 0.2, 0.6) == pytest.approx(0.4)
    assert area_under(rows, 0.2, 1.1) is None


def test_levels_may_be_shares_of_what_the_baseline_gains():
    first = log([(9, 0.5, 0.2), (19, 0.7, 0.3)], **{"val/task/base_token_accuracy": 0.4})
    second = log([(9, 0.6, 0.2), (19, 0.5, 0.3)], **{"val/task/base_token_accuracy": 0.4})
    # base 0.4, best 0.65 on average
    assert relative_levels([0.0, 0.8, 1.0], [first, second]) == pytest.approx([0.4, 0.6, 0.65])
    with pytest.raises(GrasplError, match="no fit of the baseline has validated"):
        relative_levels([0.9], [[]])
    flat = log([(9, 0.4, 0.2)], **{"val/task/base_harmful": 0.4})
    with pytest.raises(GrasplError, match=r"the baseline reaches 0\.400, the base model 0\.400"):
        relative_levels([0.9], [flat])


def test_what_a_fit_costs_is_counted_from_its_start():
    naive = {0: log([(9, 0.5, 0.2), (19, 1.0, 0.6)])}
    ours = {0: log([(9, 0.5, 0.1), (29, 1.0, 0.2)])}
    costs = {"naive": {0: Cost(0.0, 2.0)}, "ours": {0: Cost(30.0, 3.0)}}
    found = at_level(logs({"naive": naive, "ours": ours}, costs=costs), "naive", {"spillover": 0.1}, 0.9)
    # 18 steps of 2 against 30 and 26 steps of 3
    assert found["ours"]["cost_ratio"]["mean"] == pytest.approx((30 + 78) / 36)
    assert found["naive"]["cost_ratio"]["mean"] == pytest.approx(1)
    uncounted = at_level(logs({"naive": naive, "ours": ours}), "naive", {"spillover": 0.1}, 0.9)
    assert uncounted["ours"]["cost_ratio"]["mean"] is None
