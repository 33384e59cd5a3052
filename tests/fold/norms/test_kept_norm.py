"""Batch norms that stay, between values with other gauges: they give y' = a·y + b of inputs a·x + b."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from convscope.fold.gauge.gauges import Gauges
from convscope.fold.norms.kept_norm import kept_norm_of
from convscope.fold.norms.units import units_of
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow
from convscope.tape import record
from fold.nets import Functional

INPUTS, OUTPUTS = np.array([1, 2, 3]), np.array([4, 5, 6])
SHAPE = (2, 3, 4, 5)


def kept(net, inputs=INPUTS, outputs=OUTPUTS):
    tape = record(net, SHAPE, device="cpu")
    flow = Flow(tape, net)
    unit = units_of(flow, Constants(flow))[0]
    return kept_norm_of(flow, unit, inputs, outputs)


def gauges():
    rng = np.random.default_rng(2)
    scales, shifts = rng.uniform(0.5, 2, 7) * rng.choice([-1, 1], 7), rng.normal(size=7)
    scales[0], shifts[0] = 1, 0
    return Gauges(torch.from_numpy(scales), torch.from_numpy(shifts))


def along_channels(numbers):
    return numbers.view(1, 3, 1, 1)


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.3}])
def test_gauges_on_both_sides(options, randomised):
    net = randomised(nn.Sequential(nn.BatchNorm2d(3, **options))).double()
    changed, of = copy.deepcopy(net), gauges()
    for edit in kept(net).edits(net, of):
        edit(changed)
    (a_in, b_in), (a_out, b_out) = (map(along_channels, of.of(labels)) for labels in (INPUTS, OUTPUTS))
    x = torch.randn(SHAPE, dtype=torch.float64)
    expected = a_out * net(x) + b_out
    assert torch.allclose(changed(a_in * x + b_in), expected, rtol=0, atol=1e-12)
    assert torch.equal(changed[0].running_var, net[0].running_var)


def test_one_in_float32_is_cast_once(randomised):
    net = randomised(nn.Sequential(nn.BatchNorm2d(3)))
    changed, of = copy.deepcopy(net), gauges()
    for edit in kept(net).edits(net, of):
        edit(changed)
    (a_in, b_in), (a_out, _) = of.of(INPUTS), of.of(OUTPUTS)
    assert changed[0].running_mean.dtype == changed[0].weight.dtype == torch.float32
    assert torch.equal(changed[0].running_mean, (a_in * net[0].running_mean.double() + b_in).float())
    assert torch.equal(changed[0].weight, (a_out * net[0].weight.detach().double() / a_in).float())


def test_nothing_to_do(randomised):
    net = randomised(nn.Sequential(nn.BatchNorm2d(3)))
    plain = Gauges(torch.ones(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64))
    assert kept(net).edits(net, plain) == ()


class Bare(nn.Module):
    """Statistics of a batch norm that the network's own code runs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running_mean", torch.randn(3))
        self.register_buffer("running_var", torch.rand(3) + 0.5)

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var)


def tied(attribute):
    def make():
        net = Functional(lambda s, x: s.b(s.a(x)), a=nn.BatchNorm2d(3), b=nn.BatchNorm2d(3))
        setattr(net.b, attribute, getattr(net.a, attribute))
        return net

    return make


CANNOT = {
    "called twice": lambda: Functional(lambda s, x: s.bn(s.bn(x)), bn=nn.BatchNorm2d(3)),
    "no parameters to put numbers into": lambda: nn.Sequential(Bare()),
    "tied mean": tied("running_mean"),
    "tied weight": tied("weight"),
    "tied bias": tied("bias"),
    "weight read elsewhere": lambda: Functional(
        lambda s, x: s.bn(x) * s.bn.weight.mean(), bn=nn.BatchNorm2d(3)
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_one_whose_numbers_are_not_its_own_takes_nothing(name):
    assert kept(CANNOT[name]().eval()) is None


def test_channels_must_be_those_that_it_normalises(randomised):
    net = randomised(nn.Sequential(nn.BatchNorm2d(3)))
    assert kept(net, inputs=None) is None
    assert kept(net, outputs=None) is None
    assert kept(net) is not None
