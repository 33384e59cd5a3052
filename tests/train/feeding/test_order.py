import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.core.errors import ConvscopeError
from convscope.core.seeds import derived_seed
from convscope.train.feeding.order import Order, kept_generators, reseed, share


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_shows_each_image_once_and_leaves_out_only_a_tail_too_small(images, size, processes, epoch):
    try:
        order = Order(images, size, processes, seed=1)
    except ConvscopeError:
        assert size < processes or (images < size and images < 2 * processes)
        return
    batches = order.batches(epoch)
    shown = [index for batch in batches for index in batch]
    left_out = images - len(shown)
    assert len(shown) == len(set(shown)) <= images
    assert set(shown) <= set(range(images))
    assert left_out < min(size, 2 * processes)
    assert len(batches) == order.steps_per_epoch
    for batch in batches:
        shares = [share(batch, rank, processes) for rank in range(processes)]
        assert [index for part in shares for index in part] == batch
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert min(map(len, shares)) >= min(2, size // processes)


def test_a_tail_of_one_image_is_left_out_and_of_two_kept():
    assert [len(batch) for batch in Order(9, 4, 1, 0).batches(0)] == [4, 4]
    assert [len(batch) for batch in Order(10, 4, 1, 0).batches(0)] == [4, 4, 2]
    assert [len(batch) for batch in Order(3, 1, 1, 0).batches(0)] == [1, 1, 1]


def test_the_order_depends_on_seed_and_epoch_alone():
    order = Order(50, 50, 1, seed=3)
    torch.manual_seed(99)
    first = order.batches(1)
    torch.rand(5)
    assert order.batches(1) == first
    assert order.batches(2) != first
    assert Order(50, 50, 1, seed=4).batches(1) != first
    assert Order(50, 10, 1, seed=3).batches(1) == [first[0][i : i + 10] for i in range(0, 50, 10)]


def test_too_few_images_or_more_processes_than_images_are_refused():
    with pytest.raises(ConvscopeError, match=r"1 training image\(s\)"):
        Order(1, 8, 1, 0)
    with pytest.raises(ConvscopeError, match="batch_size=2 for 3 processes"):
        Order(100, 2, 3, 0)


def test_derived_seeds_differ_between_places_and_fit_every_generator():
    seeds = {derived_seed(s, "step", i, j) for s in range(5) for i in range(50) for j in range(5)}
    assert len(seeds) == 5 * 50 * 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 23) != derived_seed(12, 3)


def test_reseeding_sets_all_three_generators_and_keeping_restores_them():
    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    reseed(derived_seed(0, "x"))
    first = draws()
    with pytest.raises(ZeroDivisionError), kept_generators():
        reseed(derived_seed(0, "x"))
        assert draws() == first
        raise ZeroDivisionError
    second = draws()
    reseed(derived_seed(0, "x"))
    assert (draws(), draws()) == (first, second)
