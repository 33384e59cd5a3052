"""Assignments against all permutations, and against SciPy's where it is there."""

from itertools import permutations

import numpy as np
import pytest

from convscope.sight.comparing.assignment import assigned


def total(gains, pairs):
    rows, columns = zip(*pairs)
    assert len(pairs) == min(gains.shape) == len(set(rows)) == len(set(columns))
    return sum(gains[pair] for pair in pairs)


def best(gains):
    gains = gains if gains.shape[0] <= gains.shape[1] else gains.T
    rows = range(gains.shape[0])
    return max(
        sum(gains[row, column] for row, column in zip(rows, chosen))
        for chosen in permutations(range(gains.shape[1]), gains.shape[0])
    )


@pytest.mark.parametrize("kind", ["noise", "ties", "equal"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 4), (3, 6), (6, 3), (6, 6)])
def test_no_permutation_is_better(shape, kind):
    for seed in range(10):
        random = np.random.default_rng(seed)
        gains = {
            "noise": random.normal(size=shape),
            "ties": random.integers(-1, 2, size=shape).astype(float),
            "equal": np.ones(shape),
        }[kind]
        pairs = assigned(gains)
        assert total(gains, pairs) == pytest.approx(best(gains), abs=1e-12)
        assert pairs == sorted(pairs)


@pytest.mark.parametrize("shape", [(80, 80), (90, 57), (40, 130)])
def test_large_ones_equal_scipy(shape):
    scipy = pytest.importorskip("scipy.optimize")
    gains = np.random.default_rng(3).normal(size=shape)
    assert assigned(gains) == [(int(r), int(c)) for r, c in zip(*scipy.linear_sum_assignment(-gains))]


def test_greedy_pairs_would_be_worse():
    gains = np.array([[9.0, 8.0], [8.0, 1.0]])
    assert assigned(gains) == [(0, 1), (1, 0)]
