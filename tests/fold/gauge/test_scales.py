"""Scales against exact rational numbers that are passed on from label to label, pair by pair."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.fold.gauge.labels import GROUND
from convscope.fold.gauge.scales import Clash, Scales

NUM_LABELS = 7
RATIOS = [Fraction(n, d) for n in (-3, -2, -1, 1, 2, 3) for d in (1, 2)]


class Exact:
    """Every label is a number times a name; what is known of names is known of all of their labels."""

    def __init__(self):
        self.of = {label: (Fraction(1), label) for label in range(NUM_LABELS)}
        self.positive = {GROUND}

    def join(self, left, right, ratio):
        """Whether a(left) = ratio · a(right) can be."""
        (a, x), (b, y) = self.of[left], self.of[right]
        if x == y:
            return a == ratio * b
        self.of = {
            label: (n * ratio * b / a, y) if name == x else (n, name) for label, (n, name) in self.of.items()
        }
        return self.is_consistent()

    def require(self, label):
        self.positive.add(label)
        return self.is_consistent()

    def is_consistent(self):
        signs = {}
        for label in self.positive:
            number, name = self.of[label]
            sign = 1 if number > 0 else -1
            if signs.setdefault(name, sign) != sign:
                return False
        return True

    def copy(self):
        made = Exact()
        made.of, made.positive = dict(self.of), set(self.positive)
        return made


labels = st.integers(0, NUM_LABELS - 1)
pairs = st.lists(st.tuples(labels, labels, st.sampled_from(RATIOS)), min_size=1, max_size=4)
steps = st.lists(st.one_of(pairs, st.lists(labels, min_size=1, max_size=3)), max_size=7)


def vectors(rows):
    left, right, ratio = zip(*rows, strict=True)
    return np.array(left), np.array(right), np.array([float(r) for r in ratio])


def carry_out(scales, step):
    """Ask for a step; return whether it is refused."""
    try:
        if isinstance(step[0], tuple):
            scales.join(*vectors(step))
        else:
            scales.require(np.array(step), positive=True)
    except Clash as clash:
        refused = clash
    else:
        return False
    assert refused.why in ("fixed", "sign")
    assert len(refused.where) > 0
    assert all(0 <= place < len(step) for place in refused.where)
    return True


@given(steps)
def test_random_steps(steps):
    scales, exact = Scales(NUM_LABELS), Exact()
    for step in steps:
        after = exact.copy()
        ask = after.join if isinstance(step[0], tuple) else after.require
        answers = [ask(*(each if isinstance(each, tuple) else (each,))) for each in step]
        fits = all(answers)
        assert carry_out(scales, step) is not fits
        exact = after if fits else exact
        values = scales.values()
        for label, (number, name) in exact.of.items():
            assert values[label] == pytest.approx(float(number) * values[name])
        assert values[GROUND] == 1
        assert (values[list(exact.positive)] > 0).all()
        assert (values != 0).all()


@given(steps, steps, steps)
def test_undo_leaves_no_trace(before, undone, after):
    scales, twin = Scales(NUM_LABELS), Scales(NUM_LABELS)
    for step in before:
        assert carry_out(scales, step) == carry_out(twin, step)
    mark = scales.mark()
    for step in undone:
        carry_out(scales, step)
    scales.undo(mark)
    every = np.arange(NUM_LABELS)
    assert all(np.array_equal(a, b) for a, b in zip(scales.find(every), twin.find(every), strict=True))
    for step in after:
        assert carry_out(scales, step) == carry_out(twin, step)
    assert np.array_equal(scales.values(), twin.values())


with_zeros = st.lists(
    st.tuples(labels, labels, st.sampled_from([*RATIOS, Fraction(0), Fraction(0)])), min_size=1, max_size=3
)
may_vanish = st.lists(st.one_of(with_zeros, st.lists(labels, min_size=1, max_size=2)), max_size=8)


@given(may_vanish, st.booleans())
def test_whatever_is_taken_in_holds(steps, positive):
    """With gains of 0 too: what is refused depends on the order, what is accepted is true."""
    scales, joined, required = Scales(NUM_LABELS), [], []
    for step in steps:
        try:
            if isinstance(step[0], tuple):
                scales.join(*vectors(step))
                joined += step
            else:
                scales.require(np.array(step), positive=positive)
                required += step
        except Clash:
            continue
    values = scales.values()
    for left, right, ratio in joined:
        assert values[left] == pytest.approx(float(ratio) * values[right])
    assert values[GROUND] == 1
    assert all(values[label] > 0 if positive else values[label] != 0 for label in required)


@given(st.lists(st.tuples(labels, labels), max_size=8), pairs)
def test_ties_first(ties, rows):
    tied, joined = Scales(NUM_LABELS), Scales(NUM_LABELS)
    if ties:
        left, right = (np.array(side) for side in zip(*ties, strict=True))
        tied.tie(left, right)
        joined.join(left, right, np.ones(len(ties)))
    assert carry_out(tied, rows) == carry_out(joined, rows)
    every = np.arange(NUM_LABELS)
    (_, a), (_, b) = tied.find(every), joined.find(every)
    same = tied.find(every)[0][:, None] == tied.find(every)[0]
    assert np.array_equal(same, joined.find(every)[0][:, None] == joined.find(every)[0])
    ratios = [np.where(same, n[:, None] / n, 0) for n in (a, b)]
    assert np.allclose(*ratios)


def test_what_is_asked_is_handed_on_along_a_chain_in_one_vector():
    """2 must be positive, is −3 times 1, and 1 is what GROUND is: all at once."""
    scales = Scales(3)
    scales.require(np.array([2]), positive=True)
    with pytest.raises(Clash, match="sign"):
        scales.join(np.array([2, GROUND]), np.array([1, 1]), np.array([-3.0, 1.0]))
    assert scales.values()[2] > 0
    scales = Scales(4)
    scales.require(np.array([3]))
    with pytest.raises(Clash, match="zero"):
        scales.join(np.array([3, 2]), np.array([2, 1]), np.array([1.0, 0.0]))


def test_zeros_go_one_way():
    scales = Scales(4)
    scales.join(np.array([1]), np.array([2]), np.array([0.0]))
    assert scales.values()[1:3].tolist() == [0.0, 1.0]
    with pytest.raises(Clash, match="zero"):
        scales.require(np.array([1]))
    with pytest.raises(Clash):
        scales.join(np.array([1]), np.array([3]), np.array([2.0]))
    scales.join(np.array([1]), np.array([3]), np.array([0.0]))
    with pytest.raises(Clash, match="fixed"):
        scales.join(np.array([GROUND]), np.array([2]), np.array([0.0]))


def test_what_may_not_vanish_does_not():
    scales = Scales(3)
    scales.require(np.array([1]))
    with pytest.raises(Clash, match="zero"):
        scales.join(np.array([1]), np.array([2]), np.array([0.0]))
    scales.join(np.array([1]), np.array([2]), np.array([-2.0]))
    assert scales.values()[1] == -2 * scales.values()[2]


def test_a_clash_in_one_place_leaves_all_of_them():
    scales = Scales(4)
    scales.join(np.array([1]), np.array([GROUND]), np.array([2.0]))
    with pytest.raises(Clash, match="fixed") as caught:
        scales.join(np.array([3, 1]), np.array([2, GROUND]), np.array([5.0, 3.0]))
    assert caught.value.where.tolist() == [1]
    assert scales.find(np.array([3]))[0].tolist() == [3]
