"""Rates with intervals, differences between runs, and how many samples a difference needs."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from graspl.errors import GrasplError

LEVEL = 0.95
"""Of every interval."""
RESAMPLES = 9999
"""Of a bootstrap or a permutation test: more changes the third digit."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    """The estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""
    n: int
    """What was resampled or counted: answers, questions or seeds."""


class Difference(NamedTuple):
    """A paired difference."""

    value: float
    """Mean of the pairs' differences, the first less the second."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    p: float
    """Two-sided, that the two are alike."""
    n: int
    """Pairs."""


def wilson(hits: int, n: int) -> Interval:
    """Return a rate with Wilson's score interval, which is right for few hits and for none.

    Answers to one question are alike, so for several answers a question this is too narrow: see `by_cluster`.

    Args:
        hits: answers that count.
        n: answers, above 0.

    Source:
        Wilson (1927), as in scipy and statsmodels.
    """
    interval = stats.binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return Interval(hits / n, float(interval.low), float(interval.high), n)


def by_cluster(values: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Interval:
    """Return the mean with a bootstrap interval over clusters: questions, or seeds, are drawn whole.

    Args:
        values: one an answer; 0 and 1 give a rate.
        clusters: the question, or the seed, of each.
        seed: of the draws.

    Returns:
        The percentile interval of the ratio of sums; with one cluster nothing is known of the spread, and it is NaN.
        With fewer than about ten clusters it is too narrow.

    Source:
        Efron and Tibshirani (1993), chapter 8; why to cluster: Miller, arXiv:2411.00640.
    """
    names = list(dict.fromkeys(clusters))
    place = {name: index for index, name in enumerate(names)}
    index = np.array([place[cluster] for cluster in clusters])
    sums = np.bincount(index, weights=np.asarray(values, float))
    counts = np.bincount(index).astype(float)
    mean = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return Interval(mean, math.nan, math.nan, len(names))
    found = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(names))


def paired(ours: Mapping[Any, float], theirs: Mapping[Any, float], *, seed: int = 0) -> Difference:
    """Return the mean difference over the questions that both answered.

    Args:
        ours: one value a question: a rate over its answers, or a score.
        theirs: the same of another run.
        seed: of the draws.

    Returns:
        With a bootstrap interval over questions and the p of a sign-flip permutation test.

    Raises:
        GrasplError: the two have fewer than two questions in common.
    """
    common = [name for name in ours if name in theirs]
    if len(common) < 2:
        raise GrasplError(f"{len(common)} questions are in both runs; evaluate both on the same suites")
    differences = np.array([ours[name] - theirs[name] for name in common])
    value = float(differences.mean())
    if not differences.any():
        return Difference(0.0, 0.0, 0.0, 1.0, len(common))
    interval = by_cluster(differences.tolist(), common, seed=seed)
    test = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return Difference(value, interval.low, interval.high, float(test.pvalue), len(common))


def samples_to_tell(
    rate: float, other: float, *, power: float = 0.8, alpha: float = 0.05, cluster: int = 1, icc: float = 0.0
) -> int:
    """Return how many answers each of two runs needs for their rates to be told apart.

    n = 2 (z_{1-alpha/2} + z_power)^2 / h^2 with h = 2 asin sqrt(rate) - 2 asin sqrt(other), times the design effect
    1 + (cluster - 1) icc.

    Args:
        rate: of one run, 0..1.
        other: of the other.
        power: chance to tell them apart.
        alpha: two-sided level of the test.
        cluster: answers a question.
        icc: correlation of answers to one question, 0..1.

    Raises:
        GrasplError: the rates are equal, or a figure is out of range.

    Source:
        Cohen (1988), chapter 6; the design effect: Kish (1965).
    """
    for name, value in (("rate", rate), ("other", other), ("icc", icc)):
        if not 0 <= value <= 1:
            raise GrasplError(f"{name}: {value} is not in 0..1")
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise GrasplError(f"{name}: {value} is not between 0 and 1")
    if rate == other or cluster < 1:
        raise GrasplError(
            "rate, other: equal rates cannot be told apart" if rate == other else "cluster: below 1"
        )
    h = 2 * math.asin(math.sqrt(rate)) - 2 * math.asin(math.sqrt(other))
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    return math.ceil(2 * (z / h) ** 2 * (1 + (cluster - 1) * icc))
