"""Regions of memory against the sets of elements that they have."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.fold.recorded.regions import Region

SIZES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=3)
REGIONS = st.builds(
    lambda offset, axes: Region(
        offset, tuple(size for size, _ in axes), tuple(step for _, step in axes), torch.float32
    ),
    st.integers(0, 12),
    SIZES,
)


def elements(region):
    """Where each element lies, by its indices."""
    return {
        place: region.offset + sum(i * step for i, step in zip(place, region.stride, strict=True))
        for place in itertools.product(*map(range, region.shape))
    }


@given(REGIONS, REGIONS)
def test_what_has_an_element_in_common_overlaps(one, other):
    common = set(elements(one).values()) & set(elements(other).values())
    assert one.overlaps(other) == other.overlaps(one)
    if common:
        assert one.overlaps(other)
    low, high = (sorted(elements(each).values()) for each in (one, other))
    if low and high and (low[-1] < high[0] or high[-1] < low[0]):
        assert not one.overlaps(other)


@given(REGIONS, REGIONS)
def test_the_same_tensor_has_each_element_in_the_same_place(one, other):
    if 0 not in (*one.shape, *other.shape):
        assert one.is_same(other) == (elements(one) == elements(other) and one.shape == other.shape)


@given(REGIONS)
def test_transposing_turns_the_indices_round(region):
    turned = elements(region.transposed())
    assert turned == {place[::-1]: where for place, where in elements(region).items()}


def test_the_same_bytes_as_other_numbers_overlap():
    wide = Region(0, (2,), (1,), torch.float64)
    assert wide.overlaps(Region(9, (2,), (1,), torch.float32))
    assert not wide.is_same(Region(0, (2,), (1,), torch.float32))


def test_torch_agrees():
    flat = torch.zeros(24)
    views = [flat[:12].view(3, 4), flat[12:].view(4, 3).t(), flat[3:21:2], flat[5].view(1, 1)]
    for view in views:
        region = Region(view.storage_offset(), tuple(view.shape), view.stride(), view.dtype)
        marked = torch.zeros(24)
        marked.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(1)
        assert set(elements(region).values()) == set(marked.nonzero().flatten().tolist())
