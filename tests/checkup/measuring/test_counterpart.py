"""Layers beside the ones they were made from: what was lost, and how far their code is apart."""

import copy

import pytest
import torch
from torch import nn

import convscope as cs
from cases import state_of
from convscope.checkup.measuring.counterpart import apart, difference, lost


class Shifted(nn.BatchNorm2d):
    """A batch norm with a tensor, a submodule and code of its own."""

    def __init__(self, channels):
        super().__init__(channels)
        self.shift = nn.Parameter(torch.full((channels, 1, 1), 0.5))
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x) + self.shift)


class Needy(nn.BatchNorm2d):
    """A batch norm that takes more than its input."""

    def forward(self, x, mask):
        return super().forward(x * mask)


def _moved(layer):
    with torch.no_grad():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.01, 3)
        layer.weight.normal_()
        layer.bias.normal_()
    return layer


def _plain(layer, kind=nn.BatchNorm2d):
    """A new layer of another class with the same tensors, as converters make it."""
    new = kind(layer.num_features)
    new.load_state_dict(layer.state_dict(), strict=False)
    return new


def test_the_difference_is_that_of_the_outputs_by_hand():
    before = _moved(Shifted(4))
    after = _plain(before)
    found = difference(before, after)
    # ŷ is γ x̂ + β with x̂ standard normal; what the plain layer leaves out is the shift and the ReLU.
    x = torch.randn(4000, 4, 1, 1, generator=torch.Generator().manual_seed(3)).double()
    y = x * before.weight.detach().double().view(1, 4, 1, 1) + before.bias.detach().double().view(1, 4, 1, 1)
    wanted = (y + 0.5).relu()
    typical = float((wanted - y).abs().mean() / wanted.std())
    assert typical < found < 20 * typical
    assert set(lost(before, after)) == {"act", "shift", "Shifted.forward"}


@pytest.mark.parametrize("kind", ["sync", "batch", "renorm", "ghost", "torch-sync"])
@pytest.mark.parametrize("make", [Shifted, nn.BatchNorm2d])
def test_convscopes_conversions_lose_nothing(kind, make):
    before = nn.Sequential(_moved(make(4)))
    after = copy.deepcopy(before)
    cs.norm.convert(after, kind, (2, 4, 5, 5))
    assert difference(before[0], after[0]) < 1e-5
    assert lost(before[0], after[0]) == ()


def test_timms_layer_through_both_converters():
    layers = pytest.importorskip("timm.layers")
    before = nn.Sequential(_moved(layers.BatchNormAct2d(4)))
    by_torch = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(before))
    assert difference(before[0], by_torch[0]) > 0.3
    assert lost(before[0], by_torch[0]) == ("BatchNormAct2d.forward",)
    by_timm = layers.convert_sync_batchnorm(copy.deepcopy(before))
    assert difference(before[0], by_timm[0]) < 1e-5
    assert lost(before[0], by_timm[0]) == ()


def test_tensors_epsilon_and_freezing_arent_code():
    before = _moved(nn.BatchNorm2d(4))
    after = _moved(nn.BatchNorm2d(4, eps=0.1))
    assert difference(before, after) == 0
    frozen = nn.Sequential(copy.deepcopy(after))
    cs.norm.freeze(frozen)
    assert difference(before, frozen[0]) < 1e-6
    assert lost(before, frozen[0]) == ()


@pytest.mark.parametrize(
    "other",
    [nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), Needy(4)],
)
def test_what_cant_be_compared(other):
    assert difference(nn.BatchNorm2d(4), other) is None


def test_a_norm_taken_out_differs():
    assert difference(_moved(nn.BatchNorm2d(4)), nn.Identity()) > 0.1


def test_both_layers_come_back_as_they_were():
    before, after = _moved(Shifted(4)).train(), _moved(nn.BatchNorm2d(4)).train()
    states = {id(layer): _bits(layer) for layer in (before, after)}
    difference(before, after)
    difference(before, Needy(4))
    assert {id(layer): _bits(layer) for layer in (before, after)} == states


def _bits(layer):
    return {key: value[:2] if key.endswith("!kind") else value for key, value in state_of(layer).items()}


def test_apart_in_standard_deviations():
    y = torch.randn(100, 3)
    assert apart([y], [y]) == 0
    assert apart([y], [y + 0.1]) == pytest.approx(0.1 / float(y.double().std(correction=0)), rel=1e-5)
    assert apart([y], [y[:50]]) is None
    assert apart([], []) is None
    assert apart([torch.full((3,), 2.0)], [torch.full((3,), 3.0)]) == 0.5  # no spread: of its size
    holes = torch.tensor([1.0, float("nan"), 3.0])
    assert apart([holes], [holes]) == 0
    assert apart([holes], [torch.ones(3)]) == float("inf")
