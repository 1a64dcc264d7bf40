import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint, proportion_effectsize

from graspl.analysis import by_cluster, paired, removed, samples_to_tell, wilson
from graspl.errors import GrasplError


@given(n=st.integers(1, 3000), share=st.floats(0, 1))
def test_wilsons_interval_is_statsmodels(n, share):
    hits = round(share * n)
    found = wilson(hits, n)
    low, high = proportion_confint(hits, n, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12


def test_none_of_2400_is_below_0_16_percent():
    assert wilson(0, 2400).high == pytest.approx(0.0016, abs=5e-5)


def test_one_answer_a_cluster_is_the_plain_bootstrap():
    values = [float(x) for x in stats.norm.rvs(size=60, random_state=1)]
    found = by_cluster(values, range(60))
    half = stats.t.ppf(0.975, 59) * stats.sem(values)
    assert found.value == pytest.approx(sum(values) / 60)
    # The percentile interval of a mean is the normal one but for n / (n - 1) and rounding
    assert found.high - found.value == pytest.approx(half, rel=0.12)
    assert found.value - found.low == pytest.approx(half, rel=0.12)


def test_answers_that_are_all_alike_in_a_question_count_once():
    """Ten copies of each answer must not make the interval narrower."""
    hits = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    once = by_cluster(hits, range(10))
    copies = by_cluster([hit for hit in hits for _ in range(10)], [i for i in range(10) for _ in range(10)])
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high), abs=0.02)
    naive = wilson(40, 100)
    assert copies.high - copies.low > 1.5 * (naive.high - naive.low)


def test_one_cluster_says_nothing_of_the_spread():
    found = by_cluster([1.0, 0.0], ["q", "q"])
    assert found.value == 0.5
    assert math.isnan(found.low)


def test_a_paired_difference_agrees_with_the_t_test():
    noise = stats.norm.rvs(size=(2, 50), random_state=3)
    ours = {i: float(x) for i, x in enumerate(noise[0] + 0.8)}
    theirs = {i: float(x) for i, x in enumerate(noise[1] * 0.5)}
    found = paired(ours, theirs)
    reference = stats.ttest_rel([*ours.values()], [*theirs.values()])
    interval = reference.confidence_interval()
    assert found.n == 50
    assert found.p == pytest.approx(reference.pvalue, abs=0.02)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.06)


def test_only_common_questions_are_paired():
    found = paired({"a": 1.0, "b": 0.0, "c": 9.0}, {"a": 0.0, "b": 0.0, "d": 5.0})
    assert found.value == 0.5
    assert found.n == 2
    with pytest.raises(GrasplError, match="1 questions are in both runs"):
        paired({"a": 1.0}, {"a": 0.0})
    assert paired({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}).p == 1.0


@pytest.mark.parametrize(("rate", "other"), [(0.0068, 0.0007), (0.2, 0.1), (0.5, 0.45), (0.01, 0.0)])
def test_the_samples_needed_are_statsmodels(rate, other):
    expected = NormalIndPower().solve_power(proportion_effectsize(rate, other), alpha=0.05, power=0.8)
    assert samples_to_tell(rate, other) == math.ceil(expected)


def test_the_samples_needed_hold_what_they_promise():
    """With as many answers the test that the formula is of finds the difference in about eight studies of ten."""
    n = samples_to_tell(0.0068, 0.0007)
    shares = [
        stats.binom.rvs(n, rate, size=4000, random_state=seed) / n
        for seed, rate in ((1, 0.0068), (2, 0.0007))
    ]
    angles = [2 * np.arcsin(np.sqrt(share)) for share in shares]
    found = (np.abs(angles[0] - angles[1]) * math.sqrt(n / 2) > stats.norm.ppf(0.975)).mean()
    assert 0.75 < found < 0.9


def test_answers_to_one_question_count_for_less():
    alone = samples_to_tell(0.2, 0.1)
    assert samples_to_tell(0.2, 0.1, cluster=100, icc=0.1) == pytest.approx(alone * 10.9, rel=0.01)
    for wrong in ({"rate": 1.2}, {"power": 1.0}, {"icc": -1}, {"other": 0.2}, {"cluster": 0}):
        with pytest.raises(GrasplError):
            samples_to_tell(**{"rate": 0.2, "other": 0.1, **wrong})


def test_the_share_removed_is_that_of_the_sums():
    """Questions on which the other run adds much count more, as in the mean spill-over of a report."""
    base = dict.fromkeys(range(40), 0.1)
    theirs = {i: 0.1 + (0.8 if i % 2 else 0.2) for i in range(40)}
    ours = {i: 0.1 + (0.2 if i % 2 else 0.1) for i in range(40)}
    found = removed(ours, theirs, base)
    assert found.value == pytest.approx(1 - (0.2 + 0.1) / (0.8 + 0.2))
    assert found.low < found.value < found.high
    assert found.n == 40
    assert removed(base, theirs, base).value == pytest.approx(1.0)
    assert removed(theirs, theirs, base)[:3] == pytest.approx((0, 0, 0))


def test_a_share_of_nothing_is_not_given():
    noise = {i: float(x) for i, x in enumerate(stats.norm.rvs(size=30, random_state=2))}
    base = dict.fromkeys(range(30), 0.0)
    assert removed(base, noise, base) is None
    assert removed(base, {0: 1.0}, base) is None
