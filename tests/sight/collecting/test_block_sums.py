"""The canonical tree of sums against exact sums and against every order of adding."""

import math
import random

import pytest
import torch

from convscope.sight.collecting.block_sums import BlockSums


def by_hand(values):
    """The same tree over all values at once: halves of the largest power of two, then the rest."""
    if not values:
        return []
    size = 2 ** (len(values).bit_length() - 1)

    def block(part):
        return part[0] if len(part) == 1 else block(part[: len(part) // 2]) + block(part[len(part) // 2 :])

    return [block(values[:size]), *by_hand(values[size:])]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13, 64, 100])
def test_is_the_same_tree_in_every_order(count):
    chance = random.Random(count)
    values = [chance.uniform(-1, 1) * 10 ** chance.uniform(-8, 8) for _ in range(count)]
    blocks = by_hand(values)
    expected = blocks[-1]
    for block in blocks[-2::-1]:
        expected = expected + block
    for _ in range(10):
        order = chance.sample(range(count), count)
        sums = [BlockSums() for _ in range(3)]
        for number in order:
            sums[chance.randrange(3)].add(number, torch.tensor([values[number]], dtype=torch.float64))
        first, second, third = chance.sample(sums, 3)
        second.merge(third)
        first.merge(second)
        assert first.total().item() == expected
        assert len(first.nodes) == len(blocks) == count.bit_count()


def test_is_as_accurate_as_pairwise_summation():
    values = [0.1 + number * 1e-9 for number in range(5000)]
    sums = BlockSums()
    for number, value in enumerate(values):
        sums.add(number, torch.tensor(value, dtype=torch.float64))
    assert sums.total().item() == pytest.approx(math.fsum(values), rel=1e-15)


def test_nothing_has_no_total():
    assert BlockSums().total() is None


def test_a_batch_counts_once():
    sums = BlockSums()
    sums.add(2, torch.ones(1))
    with pytest.raises(AssertionError):
        sums.add(2, torch.ones(1))
