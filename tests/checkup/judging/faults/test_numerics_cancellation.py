"""PyTorch's variance of inputs far from zero, as they lie in memory, and this library's beside it."""

import math

import pytest
import torch
from torch import nn

from checkup.grown import evidence, images
from checkup.judging.observed import norm, observation
from convscope import checkup
from convscope.checkup.judging.faults.numerics import cancellation
from convscope.checkup.observed import InputFacts
from convscope.norm import convert


@pytest.mark.parametrize(
    ("error", "severity"), [(0.02, "warning"), (0.11, "error"), (103.0, "error"), (math.inf, "error")]
)
def test_severity_follows_the_error(error, severity):
    (finding,) = cancellation(observation(norm(inputs=InputFacts(variance_error=error))))
    assert finding.severity == severity
    assert finding.effect == error / 0.01


@pytest.mark.parametrize("error", [None, 0.0, 0.009])
def test_small_errors_are_silent(error):
    assert list(cancellation(observation(norm(inputs=InputFacts(variance_error=error)), norm()))) == []


def test_the_worst_layer_comes_first():
    norms = [norm(inputs=InputFacts(variance_error=error), address=str(error)) for error in (0.02, 0.5)]
    assert [finding.address for finding in cancellation(observation(*norms))] == ["0.5", "0.02"]


def _far_off(layout):
    """2¹⁷ values per channel, a mean of 10⁵ standard deviations."""
    x = images(32, (64, 64)) + 1e5
    return x.to(memory_format=layout)


def _found(net, x):
    return [finding for finding in checkup(net, [x]).findings if finding.fault == "cancellation"]


def test_channels_last_on_the_cpu():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).train()
    (finding,) = _found(net, _far_off(torch.channels_last))
    assert finding.severity == "error"
    assert evidence(finding, "mean to spread") > 3e4
    assert _found(net, _far_off(torch.contiguous_format)) == []
    convert(net, "batch")
    assert _found(net, _far_off(torch.channels_last)) == []


def test_this_library_s_variance_is_right_where_pytorch_s_is_not():
    """The remedy's claim: the output's spread is 1."""
    net = convert_to_batch(nn.Sequential(nn.BatchNorm2d(3, affine=False)).train())
    out = net(_far_off(torch.channels_last))
    assert torch.allclose(out.double().var((0, 2, 3)), torch.ones(3, dtype=torch.float64), rtol=1e-2)


def convert_to_batch(net):
    convert(net, "batch")
    return net
