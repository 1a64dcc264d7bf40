"""Rates and means with intervals, paired differences, and how many answers a difference needs."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from graspl.errors import GrasplError

LEVEL = 0.95  # Confidence level of every interval
RESAMPLES = 9999  # Draws of a bootstrap or a permutation test; more would change only the third digit


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float  # The estimate
    low: float  # Lower end
    high: float  # Upper end
    n: int  # Number of answers, questions or seeds


class Summary(NamedTuple):
    """A figure over seeds, or over tasks."""

    n: int  # Fits, or tasks, that have the figure
    mean: float | None  # None without any
    sd: float | None  # Standard deviation (n - 1); None with fewer than two
    low: float | None  # Lower end of the 95 % interval of the mean
    high: float | None  # Upper end


class Difference(NamedTuple):
    """A paired difference."""

    value: float  # Mean of the differences, first minus second
    low: float  # Lower end of the 95 % interval
    high: float  # Upper end
    p: float  # Two-sided p value of no difference
    n: int  # Number of pairs


def summarise(values: Sequence[float | None]) -> Summary:
    """Return mean, standard deviation and Student's 95 % interval of the mean; None (level not reached) is left out."""
    known = [value for value in values if value is not None]
    n = len(known)
    if n == 0:
        return Summary(0, None, None, None, None)
    mean = math.fsum(known) / n
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def wilson(hits: int, n: int) -> Interval:
    """Return the rate of hits among n answers with Wilson's score interval, which also holds for few hits or none.

    Answers to one question resemble each other. With several answers to a question it is too narrow: use `by_cluster`.

    Source:
        Wilson (1927), as in scipy and statsmodels.
    """
    interval = stats.binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return Interval(hits / n, float(interval.low), float(interval.high), n)


def by_cluster(values: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Interval:
    """Return the mean with a bootstrap interval that draws whole clusters: questions or seeds.

    The interval is the percentile one of the ratio of sums; NaN with one cluster, and too narrow below about ten.

    Source:
        Efron and Tibshirani (1993), chapter 8. Miller, arXiv:2411.00640, says why to cluster.
    """
    names = list(dict.fromkeys(clusters))
    place = {name: index for index, name in enumerate(names)}
    index = np.array([place[cluster] for cluster in clusters])
    sums = np.bincount(index, weights=np.asarray(values, float))
    counts = np.bincount(index).astype(float)
    mean = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return Interval(mean, math.nan, math.nan, len(names))
    return _ratio(sums, counts, seed)


def _ratio(above: Any, below: Any, seed: int) -> Interval:
    """Return sum(above) / sum(below), arrays of one value a question or cluster, with its percentile bootstrap interval."""
    found = stats.bootstrap(
        (above, below),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(above.sum() / below.sum()), float(found.low), float(found.high), len(above))


def paired(ours: Mapping[Any, float], theirs: Mapping[Any, float], *, seed: int = 0) -> Difference:
    """Return the mean difference of two runs' values by question, over the questions that both answered.

    The interval is a bootstrap over questions, the p value that of a sign-flip permutation test.

    Raises:
        GrasplError: the runs share fewer than two questions.
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


def removed(
    ours: Mapping[Any, float], theirs: Mapping[Any, float], base: Mapping[Any, float], *, seed: int = 0
) -> Interval | None:
    """Return the share of what another run adds to the base model that is gone in ours, over common questions.

    It is sum(theirs - ours) / sum(theirs - base), with a percentile bootstrap over questions; over 1 where ours lies below
    the base model. None where the other run adds nothing that the questions can tell from 0: a share of nothing says nothing.

    Args:
        ours: values by question, of the run in question.
        theirs: of the run that it is compared with.
        base: of the base model.
        seed: of the draws.
    """
    common = [name for name in ours if name in theirs and name in base]
    if len(common) < 2 or paired(theirs, base, seed=seed).low <= 0:
        return None
    gone = np.array([theirs[name] - ours[name] for name in common])
    added = np.array([theirs[name] - base[name] for name in common])
    return _ratio(gone, added, seed)


def samples_to_tell(
    rate: float, other: float, *, power: float = 0.8, alpha: float = 0.05, cluster: int = 1, icc: float = 0.0
) -> int:
    """Return how many answers each of two runs needs to tell their rates apart.

    n = 2 (z_{1-alpha/2} + z_power)^2 / h^2 with h = 2 asin sqrt(rate) - 2 asin sqrt(other), times the design effect
    1 + (cluster - 1) icc.

    Args:
        rate: of one run, 0..1.
        other: of the other.
        power: chance to tell them apart.
        alpha: two-sided level of the test.
        cluster: answers to each question.
        icc: correlation of answers to one question, 0..1.

    Raises:
        GrasplError: the rates are equal, or an argument is out of range.

    Source:
        Cohen (1988), chapter 6; Kish (1965) for the design effect.
    """
    closed, inner = {"rate": rate, "other": other, "icc": icc}, {"power": power, "alpha": alpha}
    for name, value in (closed | inner).items():
        if not 0 <= value <= 1 or (name in inner and value in (0, 1)):
            raise GrasplError(f"{name}: {value} is not {'between 0 and 1' if name in inner else 'in 0..1'}")
    if rate == other or cluster < 1:
        wrong = "rate, other: equal rates cannot be told apart" if rate == other else "cluster: below 1"
        raise GrasplError(wrong)
    h = 2 * math.asin(math.sqrt(rate)) - 2 * math.asin(math.sqrt(other))
    z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    return math.ceil(2 * (z / h) ** 2 * (1 + (cluster - 1) * icc))
