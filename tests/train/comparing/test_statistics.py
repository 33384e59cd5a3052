"""Intervals and exact tests, against SciPy and explicit loops."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from convscope.train.comparing.statistics import (
    interval,
    reached_median,
    sign_flip_p,
    t_cdf,
    t_quantile,
)

VALUES = [0.31, 0.27, 0.35, 0.22, 0.4, 0.29]


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 10, 29])
@pytest.mark.parametrize("probability", [0.6, 0.95, 0.975, 0.9995])
def test_quantiles_are_those_of_students_t(degrees, probability):
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)
    assert t_cdf(1.3, degrees) == pytest.approx(stats.t.cdf(1.3, degrees), rel=1e-12)


@pytest.mark.parametrize("number", [2, 3, 6])
def test_the_interval_is_the_one_sample_t_interval(number):
    values = VALUES[:number]
    found = interval(values)
    low, high = stats.t.interval(0.95, number - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-9)
    assert (found.least, found.most, found.num_seeds) == (min(values), max(values), number)


def test_one_value_has_no_interval_and_none_no_mean():
    assert (interval([3.0]).low, interval([3.0]).high) == (None, None)
    assert interval([]) is None


@pytest.mark.parametrize("side", [-1, 0, 1])
def test_p_is_the_share_of_all_sign_patterns(side):
    differences = [0.3, -0.1, 0.2, 0.25, 0.05]
    seen, extreme = sum(differences), 0
    for signs in itertools.product((1, -1), repeat=5):
        total = sum(sign * value for sign, value in zip(signs, differences, strict=True))
        extreme += abs(total) >= abs(seen) - 1e-12 if side == 0 else side * total >= side * seen - 1e-12
    assert sign_flip_p(differences, side) == extreme / 32


def test_p_is_scipys_paired_permutation_test():
    def mean(first, second):
        return np.mean(first - second)

    first, second = np.array(VALUES), np.array([0.2, 0.3, 0.31, 0.2, 0.33, 0.21])
    for side, alternative in ((0, "two-sided"), (1, "greater"), (-1, "less")):
        theirs = stats.permutation_test(
            (first, second), mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
        )
        assert sign_flip_p((first - second).tolist(), side) == pytest.approx(theirs.pvalue)


def test_five_pairs_are_the_fewest_that_reach_five_percent():
    assert sign_flip_p([1.0] * 4, 1) == 1 / 16
    assert sign_flip_p([1.0] * 5, 1) == 1 / 32


def test_without_differences_or_with_too_many_there_is_no_p():
    assert sign_flip_p([]) is None
    assert sign_flip_p([1.0] * 21) is None
    assert sign_flip_p([0.0] * 5) == 1.0


@pytest.mark.parametrize(
    ("steps", "median"),
    [([10, 30, 20], 20.0), ([10, None, 20], 20.0), ([10, None, None], None), ([10, None], None),
     ([10, 20, 30, None], 25.0), ([], None), ([None], None)],
)  # fmt: skip
def test_what_was_never_reached_counts_as_later_than_all(steps, median):
    assert reached_median(steps) == median
    counted = [math.inf if step is None else step for step in steps]
    if steps and math.isfinite(np.median(counted)):
        assert median == np.median(counted)
