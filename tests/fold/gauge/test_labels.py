"""Compact labels move as labels do that are written out for every element."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.fold.gauge.labels import GROUND, along, compact, grounded, joined, moved, on_axis, reshaped

SIZES = st.integers(1, 4)


@st.composite
def labelled(draw, min_rank=1, max_rank=4):
    """A shape, and labels that change along some of its axes, some of them the same at several places."""
    shape = draw(st.lists(SIZES, min_size=min_rank, max_size=max_rank))
    lengths = [size if draw(st.booleans()) else 1 for size in shape]
    numbers = draw(st.lists(st.integers(0, 9), min_size=(n := int(np.prod(lengths))), max_size=n))
    return tuple(shape), np.array(numbers, dtype=np.int64).reshape(lengths)


def full(labels, shape):
    return np.broadcast_to(labels, shape)


def assert_is(labels, expected):
    """Labels are those expected, in an array that repeats nothing."""
    assert labels.ndim == expected.ndim
    assert np.array_equal(full(labels, expected.shape), expected)
    for axis, length in enumerate(labels.shape):
        assert length in (1, expected.shape[axis])


def assert_short(labels):
    for axis, length in enumerate(labels.shape):
        assert length == 1 or (labels != labels.take([0], axis)).any()


@st.composite
def reshapes(draw):
    """A shape with labels, and another shape with as many elements."""
    shape, labels = draw(labelled())
    primes = [p for size in shape for p in {1: [1], 2: [2], 3: [3], 4: [2, 2]}[size]]
    factors = draw(st.permutations(primes))
    new = [1]
    for factor in factors:
        if draw(st.booleans()):
            new.append(factor)
        else:
            new[-1] *= factor
    return shape, labels, tuple(new)


@given(reshapes())
def test_reshaped(drawn):
    shape, labels, new = drawn
    made = reshaped(labels, shape, new)
    assert_is(made, full(labels, shape).reshape(new))


def test_reshape_of_plain_axes_stays_short():
    labels = np.arange(6).reshape(1, 6, 1, 1)
    assert reshaped(labels, (2, 6, 4, 5), (2, 6, 20)).shape == (1, 6, 1)
    assert reshaped(labels, (2, 6, 4, 5), (2, 2, 3, 4, 5)).shape == (1, 2, 3, 1, 1)
    assert reshaped(labels, (2, 6, 4, 5), (2, 120)).shape == (1, 120)
    assert reshaped(labels, (2, 6, 4, 5), (240,)).shape == (240,)
    assert reshaped(np.array(3).reshape(()), (), (1, 1)).shape == (1, 1)
    assert reshaped(np.array([[3]]), (1, 1), ()).shape == ()


@given(labelled(min_rank=2), st.data())
def test_moved(drawn, data):
    shape, labels = drawn
    axis = data.draw(st.integers(0, len(shape) - 1))
    moves = {
        "flip": lambda x: x.flip(axis),
        "roll": lambda x: x.roll(2, axis),
        "transpose": lambda x: x.transpose(0, axis) if axis == 0 else x.transpose(1, axis),
        "repeat": lambda x: torch.cat([x, x.flip(1)], 1),
    }
    move = moves[data.draw(st.sampled_from(sorted(moves)))]
    made = moved(labels, shape, move)
    assert_is(made, move(torch.from_numpy(full(labels, shape).copy())).numpy())
    assert_short(made)


@given(st.data())
def test_joined(data):
    shape, first = data.draw(labelled())
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts, sizes = [first], [shape[axis]]
    for _ in range(data.draw(st.integers(0, 2))):
        size = data.draw(SIZES)
        other = [*shape[:axis], size, *shape[axis + 1 :]]
        lengths = [n if data.draw(st.booleans()) else 1 for n in other]
        parts.append(
            np.array(data.draw(st.integers(0, 9))) + np.arange(int(np.prod(lengths))).reshape(lengths) % 3
        )
        sizes.append(size)
    made = joined(parts, sizes, axis)
    shapes = [[*shape[:axis], size, *shape[axis + 1 :]] for size in sizes]
    assert_is(
        made, np.concatenate([full(part, each) for part, each in zip(parts, shapes, strict=True)], axis)
    )
    assert_short(made)


@given(labelled())
def test_compact(drawn):
    shape, labels = drawn
    assert_is(compact(labels), full(labels, labels.shape))
    assert_short(compact(labels))
    assert_is(compact(full(labels, shape).copy()), full(labels, shape))


@given(labelled(), st.data())
def test_on_axis(drawn, data):
    shape, labels = drawn
    axis = data.draw(st.integers(0, len(shape) - 1))
    vector = on_axis(labels, axis, shape[axis])
    if vector is None:
        assert any(length > 1 for i, length in enumerate(labels.shape) if i != axis)
    else:
        assert np.array_equal(full(along(vector, axis, len(shape)), shape), full(labels, shape))


def test_sizes_that_are_equal_stay_apart():
    labels = along(np.array([5, 6, 7]), 1, 3)
    assert on_axis(labels.transpose(0, 2, 1), 1, 3) is None
    assert on_axis(labels.transpose(0, 2, 1), 2, 3).tolist() == [5, 6, 7]


def test_grounded():
    assert grounded(3).shape == (1, 1, 1)
    assert on_axis(grounded(2), 1, 4).tolist() == [GROUND] * 4
