"""Operators that compare: they pass positive scales, and maxima pass shifts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fold.gauge.claims import case
from fold.gauge.passing import SCALE, admitted, true
from fold.gauge.trials import assert_claim, assert_needed

SEQUENCE, IMAGE, CUBE = (2, 3, 5), (2, 4, 3, 5), (2, 2, 3, 4, 4)
SLOPES = {"slope": lambda: nn.Parameter(torch.rand(4))}

CASES = {
    "relu": case(lambda s, x: x.relu(), IMAGE),
    "relu in place": case(lambda s, x: x.clone().relu_(), IMAGE),
    "leaky_relu": case(lambda s, x: F.leaky_relu(x, 0.2), IMAGE),
    "leaky_relu falling": case(lambda s, x: F.leaky_relu(x, -0.7), IMAGE),
    "leaky_relu in place": case(lambda s, x: F.leaky_relu(x.clone(), 0.2, inplace=True), IMAGE),
    "prelu": case(lambda s, x: F.prelu(x, s.slope), IMAGE, **SLOPES),
    "prelu of one slope": case(lambda s, x: F.prelu(x, s.slope[:1]), IMAGE, **SLOPES),
    "prelu by data": case(lambda s, x, y: torch.ops.aten._prelu_kernel(x, y), IMAGE, (1, 4, 1, 1)),
    "abs": case(lambda s, x: x.abs(), IMAGE),
    "threshold": case(lambda s, x: F.threshold(x, 0, 0), IMAGE),
    "threshold elsewhere": case(lambda s, x: F.threshold(x, 0.1, 0), IMAGE),
    "threshold to elsewhere": case(lambda s, x: F.threshold(x, 0, 0.1), IMAGE),
    "clamp": case(lambda s, x: x.clamp(min=0), IMAGE),
    "clamp elsewhere": case(lambda s, x: x.clamp(min=0.1), IMAGE),
    "clamp above": case(lambda s, x: x.clamp(0, 0.5), IMAGE),
    "clamp by a tensor": case(lambda s, x: x.clamp(min=s.slope[:, None, None]), IMAGE, **SLOPES),
    "clamp_min": case(lambda s, x: torch.clamp_min(x, 0), IMAGE),
    "clamp_min in place": case(lambda s, x: x.clone().clamp_min_(0), IMAGE),
    "clamp_min by data": case(lambda s, x, y: torch.clamp_min(x, y), IMAGE, IMAGE),
    "relu6": case(lambda s, x: F.relu6(x), IMAGE),
    "sigmoid": case(lambda s, x: x.sigmoid(), IMAGE),
    "max_pool1d": case(lambda s, x: F.max_pool1d(x, 2), SEQUENCE),
    "max_pool2d": case(lambda s, x: F.max_pool2d(x, 2), IMAGE),
    "max_pool2d padded": case(lambda s, x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    "max_pool2d dilated": case(lambda s, x: F.max_pool2d(x, 2, 1, dilation=2), IMAGE),
    "max_pool2d of one": case(lambda s, x: F.max_pool2d(x, 2), (4, 3, 5)),
    "max_pool3d": case(lambda s, x: F.max_pool3d(x, 2), CUBE),
    "max_pool3d over channels": case(lambda s, x: F.max_pool3d(x, (2, 1, 1)), IMAGE),
    "adaptive_max_pool1d": case(lambda s, x: F.adaptive_max_pool1d(x, 2), SEQUENCE),
    "adaptive_max_pool2d": case(lambda s, x: F.adaptive_max_pool2d(x, 2), IMAGE),
    "adaptive_max_pool3d": case(lambda s, x: F.adaptive_max_pool3d(x, 2), CUBE),
    "adaptive_max_pool3d over channels": case(lambda s, x: F.adaptive_max_pool3d(x, (2, 3, 5)), IMAGE),
    "indices": case(lambda s, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (2, 3, 4, 4)),
    "amax": case(lambda s, x: x.amax((2, 3)), IMAGE),
    "amax keepdim": case(lambda s, x: x.amax(-1, keepdim=True), IMAGE),
    "amax of all": case(lambda s, x: x.amax(), IMAGE),
    "amax of channels": case(lambda s, x: x.amax(1), IMAGE),
    "max": case(lambda s, x: x.max(2)[0], IMAGE),
    "max keepdim": case(lambda s, x: x.max(-1, keepdim=True)[0], IMAGE),
    "max of all": case(lambda s, x: x.max(), IMAGE),
    "max of two": case(lambda s, x, y: torch.max(x, y), IMAGE, IMAGE),
    "where it is largest": case(lambda s, x: x.max(2)[1].double(), IMAGE),
}

STRICTER = {
    "abs": {"negative"},
    # of both sides together, or together with the number that they're compared with
    **dict.fromkeys(["clamp_min by data", "relu6", "indices", "max of two"], SCALE),
}
"""What would pass, and isn't let through."""


@pytest.mark.parametrize("name", CASES)
def test_claim(name):
    assert_claim(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_asked_without_need(name):
    assert_needed(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_all_passes_that_can(name):
    assert admitted(CASES[name]) == true(CASES[name]) - STRICTER.get(name, set())
