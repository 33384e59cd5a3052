"""The analysis of variance against SciPy's, and how often shuffled batches are taken for sorted ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from convscope.checkup.judging.shuffling import f_tail, sortedness
from convscope.checkup.measuring.population import Pool


@given(ratio=st.floats(1e-3, 1e4), between=st.integers(1, 4000), within=st.integers(1, 200_000))
def test_tails_of_the_f_distribution(ratio, between, within):
    expected = stats.f.sf(ratio, between, within)
    assert f_tail(ratio, between, within) == pytest.approx(expected, rel=1e-6, abs=1e-200)


def test_the_ends_of_the_tail():
    assert f_tail(0.0, 3, 9) == 1.0
    assert f_tail(math.inf, 3, 9) == 0.0


def _sortedness(batches):
    pool = Pool()
    for batch in batches:
        pool.add(batch, batch)
    return sortedness(pool.population())


@pytest.mark.parametrize("sizes", [(8, 8, 8), (9, 4, 1), (5, 5)])
def test_one_channel_is_scipys_one_way_analysis(sizes):
    batches = [torch.randn(n, 1, 3, dtype=torch.float64) + i for i, n in enumerate(sizes)]
    means = [batch.mean((1, 2)).numpy() for batch in batches]
    found = _sortedness(batches)
    _, probability = stats.f_oneway(*means)
    assert found.chance == pytest.approx(2 * probability, rel=1e-6)
    everything = np.concatenate(means)
    between = sum(len(m) * (m.mean() - everything.mean()) ** 2 for m in means) / (len(sizes) - 1)
    assert found.ratio == pytest.approx(between / everything.var(ddof=1))
    values = torch.cat(batches).numpy()
    assert found.noise == pytest.approx((between / max(sizes) / values.var(ddof=1)) ** 0.5)
    assert found.shuffled_noise == pytest.approx(
        (everything.var(ddof=1) / max(sizes) / values.var(ddof=1)) ** 0.5
    )


def test_too_little_to_tell():
    assert _sortedness([torch.randn(9, 4)]) is None
    assert _sortedness([torch.randn(1, 4), torch.randn(1, 4)]) is None
    assert _sortedness([torch.ones(4, 4), torch.ones(4, 4)]) is None
    assert _sortedness([torch.zeros(4, 2), torch.ones(4, 2)]).chance == 0.0


_DRAWS = {
    "normal": lambda n, c: torch.randn(n, c),
    "skewed": lambda n, c: torch.randn(n, c).exp(),
    "heavy tails": lambda n, c: torch.randn(n, c) / torch.rand(n, 1),
    "one factor": lambda n, c: torch.randn(n, 1) * torch.ones(c) + 0.01 * torch.randn(n, c),
    "rarely lit": lambda n, c: (torch.rand(n, c) < 0.02).float() + 1e-3 * torch.randn(n, c),
}


@pytest.mark.parametrize("batches", [2, 3, 8, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", _DRAWS)
def test_shuffled_batches_are_hardly_ever_sorted(name, batches):
    """2 · 10⁻³ is exceeded by no more than that share of draws, for all these distributions."""
    for size in (2, 4, 32):
        chances = torch.tensor(
            [_sortedness(_DRAWS[name](batches * size, 12).split(size)).chance for _ in range(100)]
        )
        assert int((chances < 2.9e-7).sum()) == 0
        assert int((chances < 2e-3).sum()) <= 2


def test_power():
    """Batches whose means differ by half a standard deviation of the images are told by ten batches of 32."""
    offsets = 0.5 * torch.randn(10, 1, 12).repeat_interleave(32, 1).reshape(320, 12)
    assert _sortedness((torch.randn(320, 12) + offsets).split(32)).chance < 2.9e-7
