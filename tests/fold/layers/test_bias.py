"""Layers without a bias: one is put only where the code that runs them reads it; else the shift stays."""

import types

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, MixedConv2d, ScaledStdConv2d
from timm.layers import Linear as TimmLinear
from torch import nn
from torch.nn.utils import parametrizations

from convscope.fold import fold
from fold.gauge.claims import Recorded, case
from fold.nets import IMAGE, Functional


class WithoutBias(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, None, self.stride, self.padding)


class Product(nn.Linear):
    def forward(self, x):
        return x @ self.weight.t()


class Operator(nn.Module):
    """Runs a layer by the tensors that it is given."""

    def forward(self, x, *tensors):
        return F.conv2d(x, *tensors)


def patched(forward):
    layer = nn.Conv2d(3, 4, 3, bias=False)
    layer.forward = types.MethodType(forward, layer)
    return layer


def calling(run, **layers):
    """A network that normalises what a function of it makes, by a module."""
    made = {"conv": nn.Conv2d(3, 4, 3, bias=False), "bn": nn.BatchNorm2d(4), **layers}
    return Functional(lambda s, x: s.bn(run(s, x)), **made)


def in_a_row(layer, norm=None):
    return nn.Sequential(layer, norm or nn.BatchNorm2d(4))


UNREAD = {
    "another module's weight": (lambda: calling(lambda s, x: F.conv2d(x, s.conv.weight)), IMAGE),
    "a subclass": (lambda: in_a_row(WithoutBias(3, 4, 3, bias=False)), IMAGE),
    "a product": (lambda: in_a_row(Product(5, 4, bias=False), nn.BatchNorm1d(4)), (3, 5)),
    "a patched layer": (lambda: in_a_row(patched(lambda s, x: F.conv2d(x, s.weight))), IMAGE),
    "handed to another": (lambda: calling(lambda s, x: s.op(x, s.conv.weight), op=Operator()), IMAGE),
    "through its method": (
        lambda: calling(lambda s, x: s.conv._conv_forward(x, s.conv.weight, None)),
        IMAGE,
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_where_code_reads_no_bias_the_shift_stays(name, randomised, relative_error):
    make, shape = UNREAD[name]
    net = randomised(make())
    folded = fold(net, shape)
    (entry,) = folded.ledger.entries
    assert entry.verdict == "partial"
    assert "has no bias" in entry.reason
    assert relative_error(net, folded.model, *shape) < 1e-6
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.model.modules())


READ = {
    "timm's convolution": (lambda: in_a_row(Conv2dSame(3, 4, 3, bias=False)), IMAGE),
    "timm's linear layer": (lambda: in_a_row(TimmLinear(5, 4, bias=False), nn.BatchNorm1d(4)), (3, 5)),
    "several convolutions": (lambda: in_a_row(MixedConv2d(3, 4, [3, 1], bias=False)), IMAGE),
    "another module's bias": (lambda: calling(lambda s, x: F.conv2d(x, s.conv.weight, s.conv.bias)), IMAGE),
    "handed to another": (
        lambda: calling(lambda s, x: s.op(x, s.conv.weight, s.conv.bias), op=Operator()),
        IMAGE,
    ),
    "a patched layer": (lambda: in_a_row(patched(lambda s, x: F.conv2d(x, s.weight, s.bias))), IMAGE),
}


@pytest.mark.parametrize("name", READ)
def test_where_code_reads_one_it_is_there_afterwards(name, randomised, relative_error):
    make, shape = READ[name]
    net = randomised(make())
    folded = fold(net, shape)
    assert [entry.verdict for entry in folded.ledger.entries] == ["folded"]
    assert relative_error(net, folded.model, *shape) < 1e-6


MATERIALISED = {
    "weight norm": lambda: parametrizations.weight_norm(WithoutBias(3, 4, 3, bias=False)),
    "weight norm, read": lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3, bias=False)),
    "scaled, read": lambda: ScaledStdConv2d(3, 4, 3, bias=False),
}


@pytest.mark.parametrize("name", MATERIALISED)
def test_computed_weights(name, randomised, relative_error):
    net = randomised(in_a_row(MATERIALISED[name]()))
    folded = fold(net, IMAGE, materialise=True)
    assert [entry.verdict for entry in folded.ledger.entries] == ["folded" if "read" in name else "partial"]
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_code_that_only_seems_to_read_a_bias_is_caught(randomised, relative_error):
    class Seeming(nn.Conv2d):
        def forward(self, x):
            assert not hasattr(self.bias, "name")
            return F.conv2d(x, self.weight)

    net = randomised(in_a_row(Seeming(3, 4, 3, bias=False)))
    folded = fold(net, IMAGE)
    assert folded.ledger.entries[0].verdict != "folded"
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


def test_a_shift_that_others_take_in_needs_no_bias(randomised, relative_error):
    net = randomised(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)))
    net[0].__class__ = WithoutBias
    folded = fold(net, IMAGE)
    assert folded.ledger.folded == 1
    assert relative_error(net, folded.model, *IMAGE) < 1e-6


@pytest.mark.parametrize(
    ("make", "reason", "remedy"),
    [
        (
            lambda: WithoutBias(4, 6, 2, bias=False),
            "layer#1:convolution.1 has no bias, and its code wouldn't read one",
            "call the layer itself, or let the code that uses its weight hand on its bias too",
        ),
        (
            lambda: Held(),
            "layer#1:mm.1 has no bias, and its module no empty one",
            "",
        ),
    ],
)
def test_why_there_is_no_room(make, reason, remedy):
    shape = (2, 4, 4, 3) if "convolution" in reason else (3, 4)
    recorded = Recorded(case(lambda s, x: s.layer(x), shape, layer=make), [(1,)])
    (layer,) = recorded.reading.layers.values()
    assert layer.bias is None
    assert (str(layer.no_room), layer.no_room.remedy) == (reason, remedy)


class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return x @ self.matrix
