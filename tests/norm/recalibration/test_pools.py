"""Pools of a layer's inputs against all its values at once."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convscope.norm.recalibration import pools
from convscope.norm.recalibration.pools import Pool, merged_pools, residual
from norm.recalibration.recalibrated import two_pass


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.sampled_from([1, 8, 2**20]),
)
def test_pooled_is_all_values_at_once_in_any_order(shapes, seed, chunk):
    generator = torch.Generator().manual_seed(seed)
    inputs = [1e4 + torch.randn(n, 3, h, w, generator=generator) for n, h, w in shapes]
    before, pools._CHUNK_VALUES = pools._CHUNK_VALUES, chunk
    try:
        first, second = Pool(), Pool()
        for x in inputs:
            first.add(x)
        for x in reversed(inputs[1:]):
            second.add(x.contiguous(memory_format=torch.channels_last))
    finally:
        pools._CHUNK_VALUES = before
    whole = first.found
    if sum(x[:, 0].numel() for x in inputs) > 1:
        mean, variance = two_pass(*inputs)
        assert torch.allclose(whole.mean, mean, rtol=1e-14)
        assert torch.allclose(whole.variance, variance, rtol=1e-9, atol=1e-12)
    if second.found is not None:
        head = Pool()
        head.add(inputs[0])
        again = merged_pools([head.found, second.found])
        assert torch.allclose(again.mean, whole.mean, rtol=1e-14)
        assert torch.allclose(again.values.squares, whole.values.squares, rtol=1e-9, atol=1e-12)
        assert again.num_calls == whole.num_calls == len(inputs)


def test_masked_values_and_empty_samples():
    x, mask = torch.randn(4, 2, 6), torch.rand(4, 1, 6) > 0.5
    mask[2] = False
    pool = Pool()
    pool.add(x.masked_fill(~mask, math.inf), mask)
    kept_CN = x.transpose(0, 1)[:, mask.squeeze(1)].double()
    assert torch.allclose(pool.found.mean, kept_CN.mean(1))
    assert torch.allclose(pool.found.variance, kept_CN.var(1))
    assert pool.found.means.count.tolist() == [3, 3]
    assert pool.found.is_finite
    of_samples = torch.stack([x[n][:, mask[n, 0]].double().mean(1) for n in (0, 1, 3)])
    assert torch.allclose(pool.found.means.unbiased_variance, of_samples.var(0))


def test_features_have_one_position():
    x, pool = torch.randn(7, 2), Pool()
    pool.add(x)
    assert torch.allclose(pool.found.variance, x.double().var(0))
    assert pool.found.values.count.tolist() == [7, 7]


def test_a_constant_channel_has_no_residual_where_it_is_known():
    pool = Pool()
    pool.add(torch.full((5, 1), 3.0))
    off = residual(pool.found, torch.tensor([3.0]), torch.tensor([0.0]), 1e-5)
    assert (off.mean, off.variance) == (0, 0)
    off = residual(pool.found, torch.tensor([2.0]), torch.tensor([1.0]), 0.0)
    assert off.mean == 1
    assert off.variance > 100


def test_one_sample_has_no_standard_error():
    pool = Pool()
    pool.add(torch.randn(1, 2, 8))
    off = residual(pool.found, torch.zeros(2), torch.ones(2), 1e-5)
    assert off.mean_error is None
    assert off.variance_error is None


def test_statistics_that_are_no_numbers_are_infinitely_far():
    pool = Pool()
    pool.add(torch.randn(9, 2))
    off = residual(pool.found, torch.tensor([0.0, math.nan]), torch.ones(2), 1e-5)
    assert off.size == math.inf
    assert off.variance < 5


def test_nan_in_an_input_is_seen():
    pool = Pool()
    pool.add(torch.tensor([[1.0, math.nan], [1.0, 2.0]]))
    assert not pool.found.is_finite


@pytest.mark.parametrize("value", [1e20, 1e30])
def test_float32_squares_do_not_overflow(value):
    pool = Pool()
    pool.add(torch.tensor([[value], [-value]]))
    assert pool.found.variance.item() == pytest.approx(2 * value**2, rel=1e-6)


def test_a_residual_from_infinite_statistics_is_infinite():
    pool = Pool()
    pool.add(torch.randn(8, 2, 3))
    for mean in (math.inf, math.nan):
        off = residual(pool.found, torch.tensor([0.0, mean]), torch.ones(2), 1e-5)
        assert off.mean == math.inf
        assert off.size == math.inf
