import math

import pytest

from convscope.train.run import Divergence
from convscope.train.telling.diverged import in_words


def _told(what, appeared_at=4, loss=math.nan, address="2.weight", **more):
    fields = {"value": "inf", "index": (1, 2), "largest_finite": 3.0, **more}
    return in_words(Divergence(4, 2, loss, 0.5, address, what, appeared_at=appeared_at, **fields))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("output", "inf at [1, 2] of the output of 2.weight (magnitudes before it: up to 3)"),
        (
            "gradient",
            "inf at [1, 2] of a gradient from the backward pass of 2.weight (magnitudes before it: up",
        ),
        ("loss", "inf at [1, 2] of the loss itself (magnitudes before it: up to 3)"),
        ("weight", "inf at [1, 2] of the weight 2.weight (magnitudes beside it: up to 3)"),
        ("running statistics", "inf at [1, 2] of the running statistic 2.weight"),
        ("buffer", "inf at [1, 2] of the buffer 2.weight"),
        ("input", "inf at [1, 2] of the images (magnitudes beside it: up to 3)"),
    ],
)
def test_each_kind_of_value_has_words(what, words):
    told = _told(what)
    assert words in told
    assert told.startswith(
        "diverged at step 4 (epoch 2, learning rate 0.5): the loss is nan; the first value"
    )
    assert ("learning_rate" in told) == (what in ("output", "gradient", "loss", "weight"))


def test_an_image_is_named_and_an_empty_index_or_size_is_left_out():
    assert "of the images (training image 17)" in _told("input", image=17)
    told = _told("loss", index=(), largest_finite=None)
    assert "is inf of the loss itself; " in told


def test_it_says_when_the_value_appeared():
    assert "computed in step" not in _told("weight")
    assert ", computed in step 3, whose loss was finite; " in _told("weight", appeared_at=3)
    assert ", computed in step 4, whose loss was finite; " in _told("gradient", loss=1.5)
    assert ", there from the beginning; " in _told("running statistics", appeared_at=0)


def test_an_unknown_cause_is_said():
    told = str(Divergence(4, 2, math.inf, 0.5))
    assert "the loss is inf; where that began wasn't found; a lower learning_rate" in told
