"""Pooled statistics against numpy in float64 over all values at once."""

import numpy as np
import pytest
import torch

from convscope.checkup.judging.shuffling import sortedness
from convscope.checkup.measuring import population
from convscope.checkup.measuring.population import Pool


def _pooled(batches):
    pool = Pool()
    for batch in batches:
        pool.add(batch, batch * 2)
    return pool.population()


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 4, 4), (5, 2, 4, 3)])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_pooled_statistics_are_those_of_all_values(shape, layout):
    batches = [torch.randn(n, *shape) * 3 + 100 for n in (7, 7, 2, 1)]
    if layout == "channels-last" and len(shape) == 3:
        batches = [batch.to(memory_format=torch.channels_last) for batch in batches]
    found = _pooled(batches)
    values = np.concatenate([np.moveaxis(b.double().numpy(), 1, 0).reshape(5, -1) for b in batches], axis=1)
    np.testing.assert_allclose(found.mean, values.mean(1), rtol=1e-13)
    np.testing.assert_allclose(found.variance, values.var(1, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(found.largest_output, 2 * values.max(1), rtol=1e-7)
    positions = values.shape[1] // 17
    assert (found.num_images, found.num_values, found.num_batches) == (17, 17 * positions, 4)
    assert (found.batch_images, found.batch_values, found.least_values) == (7, 7 * positions, positions)


def test_spread_between_images_is_that_of_the_images_means():
    batches = [torch.randn(n, 3, 4, 5) + torch.randn(n, 3, 1, 1) for n in (6, 4)]
    found = _pooled(batches)
    means = np.concatenate([b.double().numpy().mean((2, 3)) for b in batches])
    np.testing.assert_allclose(found.image_variance, means.var(0, ddof=1), rtol=1e-12)
    squares = np.concatenate(
        [((b.double() - b.double().mean((0, 2, 3), keepdim=True)) ** 2).mean((2, 3)).numpy() for b in batches]
    )
    np.testing.assert_allclose(found.square_variance, squares.var(0, ddof=1), rtol=1e-12)


def test_large_means_cost_no_digits():
    batch = torch.randn(8, 2, 16, 16) + 1e4
    expected = batch.double().var((0, 2, 3), correction=1)
    np.testing.assert_allclose(_pooled([batch[:3], batch[3:]]).variance, expected, rtol=1e-9)


def test_few_images_at_a_time_give_the_same(monkeypatch):
    batch = torch.randn(9, 3, 5, 4)
    whole = _pooled([batch])
    monkeypatch.setattr(population, "_CHUNK_VALUES", 3 * 5 * 4 * 2)
    parts = _pooled([batch])
    assert torch.equal(whole.mean, parts.mean)
    assert torch.equal(whole.variance, parts.variance)


@pytest.mark.parametrize("num_batches", [2, 64])
def test_independent_values_are_worth_what_they_are(num_batches):
    found = _pooled(torch.randn(num_batches * 16, 64, 3, 2).split(16))
    assert found.effective_values == pytest.approx(16 * 6, rel=0.15)


def test_constant_images_are_worth_one_value_each():
    found = _pooled(torch.randn(512, 32, 1, 1).expand(-1, -1, 4, 5).split(8))
    assert found.effective_values == pytest.approx(8, rel=0.15)


def test_batches_of_one_class_are_worth_less_than_their_images():
    classes = torch.randn(32, 16, 1).repeat_interleave(8, 0)
    found = _pooled((classes + 0.1 * torch.randn(256, 16, 3)).split(8))
    assert found.effective_values == pytest.approx(1, rel=0.3)


def test_one_image_says_nothing_about_images():
    found = _pooled([torch.randn(1, 3, 4, 4)])
    assert found.effective_values is None
    assert found.image_variance.isnan().all()
    assert _pooled([torch.ones(4, 3, 2, 2)]).effective_values is None


def test_batches_are_compared_with_others_of_their_size():
    """Small images have other means than large ones; within a size, batches are drawn alike."""
    pool, means = Pool(), {4: [], 9: []}
    for number in range(12):
        size = 4 if number % 2 else 9
        x = torch.randn(16, 2, size, dtype=torch.float64) + (3.0 if size == 4 else 0.0)
        pool.add(x, x)
        means[size].append(x.mean((0, 2)))
    found = pool.population()
    apart = [torch.stack(each) - torch.stack(each).mean(0) for each in means.values()]
    between = 16 * torch.cat(apart).square().sum(0)
    assert torch.allclose(found.batch_variance, between / 10 / 16)
    assert found.num_compared == 11
    assert sortedness(found).ratio < 2
    assert found.effective_values == pytest.approx(float(1 / (found.batch_variance / found.variance).mean()))


def test_a_repeated_batch_counts_once():
    batches = [torch.randn(16, 2, dtype=torch.float64) for _ in range(4)]
    once, often = Pool(), Pool()
    for x in batches:
        once.add(x, x)
    for x in batches * 10:
        often.add(x, x)
    one, many = once.population(), often.population()
    assert torch.equal(one.batch_variance, many.batch_variance)
    assert (many.num_compared, many.free_within) == (4, 60)
    assert sortedness(many).chance == pytest.approx(sortedness(one).chance)
