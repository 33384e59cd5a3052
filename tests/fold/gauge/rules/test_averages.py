"""Weighted means: every gauge passes where weights sum to 1, a scale elsewhere."""

import pytest
import torch
import torch.nn.functional as F

from fold.gauge.claims import case
from fold.gauge.passing import SHIFT, admitted, true
from fold.gauge.trials import assert_claim, assert_needed

SEQUENCE, IMAGE, CUBE = (2, 3, 5), (2, 4, 3, 5), (2, 2, 3, 2, 4)


def larger(mode, shape, **options):
    return case(lambda s, x: F.interpolate(x, scale_factor=1.5, mode=mode, **options), shape)


CASES = {
    "mean": case(lambda s, x: x.mean((2, 3)), IMAGE),
    "mean keepdim": case(lambda s, x: x.mean((-1, -2), keepdim=True), IMAGE),
    "mean of all": case(lambda s, x: x.mean(), IMAGE),
    "mean of no axes": case(lambda s, x: x.mean(()), IMAGE),
    "mean of channels": case(lambda s, x: x.mean(1), IMAGE),
    "mean of samples": case(lambda s, x: x.mean(0), IMAGE),
    "mean in float32": case(lambda s, x: x.mean((2, 3), dtype=torch.float32), IMAGE, close=1e-5),
    "sum": case(lambda s, x: x.sum((2, 3)), IMAGE),
    "sum keepdim": case(lambda s, x: x.sum(-1, keepdim=True), IMAGE),
    "sum of all": case(lambda s, x: x.sum(), IMAGE),
    "sum of samples": case(lambda s, x: x.sum(0), IMAGE),
    "avg_pool1d": case(lambda s, x: F.avg_pool1d(x, 2), SEQUENCE),
    "avg_pool2d": case(lambda s, x: F.avg_pool2d(x, 2), IMAGE),
    "avg_pool2d of one": case(lambda s, x: F.avg_pool2d(x, 2), (4, 3, 5)),
    "avg_pool2d counting pads": case(lambda s, x: F.avg_pool2d(x, 3, 1, 1), IMAGE),
    "avg_pool2d counting pads of one side": case(lambda s, x: F.avg_pool2d(x, 3, 1, (0, 1)), IMAGE),
    "avg_pool2d not counting pads": case(
        lambda s, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE
    ),
    "avg_pool2d ceil": case(lambda s, x: F.avg_pool2d(x, 2, 2, ceil_mode=True), IMAGE),
    "avg_pool2d ceil and pads": case(lambda s, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), (2, 2, 4, 6)),
    "avg_pool2d ceil, pads not counted": case(
        lambda s, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 2, 4, 6)
    ),
    "avg_pool2d divisor": case(lambda s, x: F.avg_pool2d(x, 2, divisor_override=3), IMAGE),
    "avg_pool3d": case(lambda s, x: F.avg_pool3d(x, 2), CUBE),
    "avg_pool3d of an image": case(lambda s, x: F.avg_pool3d(x, (2, 1, 1)), IMAGE),
    "adaptive_avg_pool1d": case(lambda s, x: F.adaptive_avg_pool1d(x, 2), SEQUENCE),
    "adaptive_avg_pool2d": case(lambda s, x: F.adaptive_avg_pool2d(x, (2, 3)), IMAGE),
    "adaptive_avg_pool2d of one": case(lambda s, x: F.adaptive_avg_pool2d(x, (2, 3)), (4, 3, 5)),
    "adaptive_avg_pool2d to one": case(lambda s, x: F.adaptive_avg_pool2d(x, 1).flatten(1), IMAGE),
    "adaptive_avg_pool3d": case(lambda s, x: F.adaptive_avg_pool3d(x, 2), CUBE),
    **{f"upsample_nearest{i}d": larger("nearest", x) for i, x in enumerate((SEQUENCE, IMAGE, CUBE), 1)},
    **{f"exact{i}d": larger("nearest-exact", x) for i, x in enumerate((SEQUENCE, IMAGE, CUBE), 1)},
    "upsample_linear1d": larger("linear", SEQUENCE),
    "upsample_bilinear2d": larger("bilinear", IMAGE),
    "upsample_bilinear2d corners": larger("bilinear", IMAGE, align_corners=True),
    "upsample_trilinear3d": larger("trilinear", CUBE),
    "upsample_bicubic2d": larger("bicubic", IMAGE),
    "_upsample_bilinear2d_aa": larger("bilinear", IMAGE, antialias=True),
    "_upsample_bicubic2d_aa": larger("bicubic", IMAGE, antialias=True),
    "smaller": case(lambda s, x: F.interpolate(x, size=(2, 2), mode="bilinear", antialias=True), IMAGE),
}

STRICTER = dict.fromkeys(
    [
        "mean of all",
        "mean of no axes",
        "mean of channels",
        "sum of all",
        "avg_pool2d of one",
        "avg_pool2d counting pads",
        "avg_pool2d counting pads of one side",
        "avg_pool2d ceil and pads",
        "avg_pool3d of an image",
        "adaptive_avg_pool2d of one",
    ],
    SHIFT,
)
"""What would pass, and isn't let through: shifts that aren't the same everywhere, or are averaged."""


@pytest.mark.parametrize("name", CASES)
def test_claim(name):
    assert_claim(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_asked_without_need(name):
    assert_needed(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_all_passes_that_can(name):
    assert admitted(CASES[name]) == true(CASES[name]) - STRICTER.get(name, set())
