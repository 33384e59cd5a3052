"""Unequal classes are told from a ratio of two."""

import pytest

from convscope.data.imbalance import imbalance_of


def test_the_largest_and_the_smallest_class_are_named():
    found = imbalance_of(("cats", "dogs", "emus"), (500, 40, 100))
    assert (found.largest, found.most, found.smallest, found.least) == ("cats", 500, "dogs", 40)
    assert found.ratio == 12.5
    assert str(found) == "cats has 12.5 times as many training images as dogs (500 against 40)"


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((1300, 732), False),
        ((2, 1), True),
        ((199, 100), False),
        ((7, 0), False),
        ((0, 0), False),
        ((0, 4, 9), True),
    ],
)
def test_it_is_told_from_two_on_among_classes_with_images(counts, told):
    assert (imbalance_of("abc", counts) is not None) == told
