"""Computed weights of layers that are called twice, have two names, or share something with others."""

import copy

import torch
from timm.layers import StdConv2d
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from convscope.fold import fold
from fold.layers.computed import Doubled, same
from fold.nets import IMAGE, Functional, conv


def test_a_layer_called_twice_is_one_layer_still(randomised):
    net = Functional(
        lambda s, x: s.bn(s.conv(s.bn(s.conv(x)))), conv=StdConv2d(3, 3, 3), bn=nn.BatchNorm2d(3)
    )
    net = randomised(net).double()
    folded = fold(net, IMAGE, materialise=True)
    assert folded.proof.passed
    same(net, folded.model, IMAGE)


def test_two_names_for_one_layer(randomised):
    net = Functional(lambda s, x: s.bn(s.a(x)), a=StdConv2d(3, 4, 3), bn=nn.BatchNorm2d(4))
    net.alias = net.a
    net = randomised(net).double()
    folded = fold(net, IMAGE, materialise=True)
    assert folded.ledger.folded == 1
    assert folded.model.alias is folded.model.a
    same(net, folded.model, IMAGE)


def test_tied_parameters_of_a_parametrised_layer_stay_with_the_other(randomised):
    net = Functional(
        lambda s, x: s.bn(s.a(x)) + s.b(x),
        a=parametrizations.spectral_norm(conv()), b=conv(), bn=nn.BatchNorm2d(4),
    )  # fmt: skip
    net.b.weight = net.a.parametrizations.weight.original
    net = randomised(net).double()
    folded = fold(net, IMAGE, materialise=True)
    assert folded.ledger.folded == 1
    assert torch.equal(folded.model.b.weight, net.b.weight)
    same(net, folded.model, IMAGE)


def test_other_parametrisations_of_a_layer_stay(randomised):
    class Extra(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * self.gain

    layer = Extra(3, 4, 3)
    layer.gain = nn.Parameter(torch.ones(1))
    parametrize.register_parametrization(layer, "gain", Doubled())
    net = randomised(nn.Sequential(parametrizations.weight_norm(layer), nn.BatchNorm2d(4))).double()
    before = copy.deepcopy(net)
    folded = fold(net, IMAGE, materialise=True)
    assert folded.ledger.folded == 1
    assert list(folded.model[0].parametrizations) == ["gain"]
    same(before, folded.model, IMAGE)
    same(before, net, IMAGE, 0)


def test_a_layer_that_also_makes_a_constant_keeps_making_it(randomised):
    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)) + self.conv(self.template))

    net = Functional(forward, conv=conv(), bn=nn.BatchNorm2d(4), last=nn.Identity())
    net.register_buffer("template", torch.randn(1, 3, 6, 5))
    (entry,) = fold(randomised(net), IMAGE).ledger.entries
    assert "taken back" not in entry.reason
    assert "is also called at conv#2" in entry.reason
