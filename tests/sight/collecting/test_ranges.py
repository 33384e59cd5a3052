"""Ranges against Python's own sets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.sight.collecting.ranges import Ranges

spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6)


def numbers(pairs):
    return {number for start, stop in pairs for number in range(start, stop)}


@given(spans, spans)
def test_are_sets(one, other):
    left, right = Ranges.of(one), Ranges.of(other)
    assert list(left) == sorted(numbers(one))
    assert len(left) == len(numbers(one))
    assert set(left | right) == numbers(one) | numbers(other)
    assert left.meets(right) == bool(numbers(one) & numbers(other))
    assert set(left.gaps(25)) == set(range(25)) - numbers(one)
    assert all(number in left for number in numbers(one))
    assert 31 not in left
    assert all(stop < start for (_, stop), (start, _) in zip(left.spans, left.spans[1:]))


@given(spans, st.integers(1, 7))
def test_parts_are_even_and_in_order(pairs, count):
    whole = Ranges.of(pairs)
    parts = whole.parts(count)
    assert [number for part in parts for number in part] == list(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("end", [0, 3, 5])
def test_gaps_of_more_than_there_is(end):
    assert set(Ranges.of([(2, 9)]).gaps(end)) == {0, 1} & set(range(end))
