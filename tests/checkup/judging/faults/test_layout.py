"""Padding and axes, judged; the rule for axes on networks of timm and on photographs."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from checkup.grown import faults
from checkup.judging.observed import norm, observation
from convscope import checkup
from convscope.checkup.judging.faults.layout import padding_in_statistics, wrong_axis
from convscope.checkup.measuring.observe import observe_data
from convscope.checkup.measuring.subject import Subject
from convscope.checkup.observed import InputFacts, PaddedInputs
from convscope.checkup.plan import CheckupPlan
from convscope.norm import BatchNorm1d


def _with(inputs, **changes):
    return observation(norm(inputs=inputs, **changes))


def _explained(shares, rough=2.0):
    return InputFacts(axis_shares=tuple(shares), axis_roughness=(rough,) * len(shares))


@pytest.mark.parametrize(
    ("mean", "variance", "effect"), [(1.0, 0.0, 2.0), (0.1, 1.3863, 2.0), (-0.0, 0.7, 1.01)]
)
def test_padding_that_changes_statistics(mean, variance, effect):
    (finding,) = padding_in_statistics(_with(InputFacts(padded=PaddedInputs(0.3, mean, variance))))
    assert finding.effect == pytest.approx(effect, rel=1e-3)
    assert finding.severity == "warning"
    assert "30%" in finding.why


@pytest.mark.parametrize("padded", [None, PaddedInputs(0.3, 0.49, 0.69), PaddedInputs(0.9, 0.0, 0.0)])
def test_padding_that_does_not(padded):
    assert list(padding_in_statistics(_with(InputFacts(padded=padded)))) == []


def test_frozen_layers_take_no_statistics():
    facts = replace(_explained((0.0, 0.9)), padded=PaddedInputs(0.3, 9.0, 0.0))
    assert list(padding_in_statistics(_with(facts, frozen=True))) == []
    assert list(wrong_axis(_with(facts, frozen=True))) == []


@pytest.mark.parametrize("shares", [(), (0.1,), (0.0, 0.1), (0.1, 0.3), (0.2, 0.4, 0.3)])
def test_axes_that_may_be_right(shares):
    assert list(wrong_axis(_with(_explained(shares)))) == []


def test_one_channel_explains_nothing():
    assert list(wrong_axis(_with(_explained((0.0, 0.9)), channels=1))) == []


def test_positions_that_are_like_their_neighbours():
    assert list(wrong_axis(_with(_explained((0.0, 0.9), rough=0.3)))) == []
    assert len(list(wrong_axis(_with(_explained((0.0, 0.9), rough=1.7))))) == 1


@pytest.mark.parametrize("axis", [2, 3])
def test_the_remedy_s_permutations_are_each_other_s_inverse(axis):
    shares = [0.01, 0.02, 0.02]
    shares[axis - 1] = 0.6
    (finding,) = wrong_axis(_with(_explained(shares)))
    orders = re.findall(r"permute\((.*?)\)", finding.remedy)
    there, back = (tuple(map(int, order.split(", "))) for order in orders)
    x = torch.randn(2, 3, 4, 5)
    assert x.permute(there).shape[1] == x.shape[axis]
    assert x.permute(there).permute(back).shape == x.shape
    assert finding.effect == pytest.approx(4.0)


class _Steps(nn.Module):
    """A batch norm for 8 features, given (N, 8 steps, 8 features)."""

    def __init__(self, swap):
        super().__init__()
        self.swap, self.first, self.bn = swap, nn.Linear(5, 8), nn.BatchNorm1d(8)

    def forward(self, x):
        x = self.first(x)
        return self.bn(x.transpose(1, 2)) if self.swap else self.bn(x)


def test_features_along_the_last_axis():
    net = _Steps(swap=False).train()
    with torch.no_grad():
        net.first.bias.copy_(torch.linspace(-2, 2, 8)[[3, 0, 6, 1, 7, 2, 5, 4]])
    found = checkup(net, torch.randn(64, 8, 5))
    assert ("wrong-axis", "bn#1") in faults(found)
    net.swap = True
    assert "wrong-axis" not in dict(faults(checkup(net, torch.randn(64, 8, 5))))


def test_a_network_s_own_inputs_may_have_trends():
    """A quarter of the variance is position, whether its order means something or not."""
    trend = torch.linspace(-1, 1, 30)[torch.randperm(30)]
    x = 1.0 * torch.randn(64, 6, 30) + trend
    assert "wrong-axis" not in dict(faults(checkup(nn.BatchNorm1d(6).train(), [x[:32], x[32:]])))
    later = nn.Sequential(nn.Hardtanh(-9, 9), nn.BatchNorm1d(6)).train()
    assert ("wrong-axis", "1#1") in faults(checkup(later, [x[:32], x[32:]]))
    smooth = x - trend + torch.linspace(-1, 1, 30)
    assert "wrong-axis" not in dict(faults(checkup(later, [smooth[:32], smooth[32:]])))


def test_a_mask_takes_the_effect_away():
    """What the remedy offers: statistics of the content alone, whatever the padding."""
    layer = BatchNorm1d(3).train()
    x, mask = torch.randn(8, 3, 10), torch.arange(10) < torch.arange(3, 11)[:, None]
    first = layer(x, mask)
    x = torch.where(mask[:, None], x, torch.tensor(99.0))
    assert torch.equal(layer(x, mask), first)


def _photographs(number):
    from skimage import data

    pictures = [
        torch.tensor(load()).permute(2, 0, 1).float() for load in (data.astronaut, data.coffee, data.chelsea)
    ]
    generator = torch.Generator().manual_seed(0)
    crops = []
    for index in range(number):
        picture = pictures[index % 3]
        top, left = (int(torch.randint(0, size - 96, (), generator=generator)) for size in picture.shape[1:])
        crops.append(picture[:, top : top + 96, left : left + 96])
    return (torch.stack(crops) - 120) / 60


@pytest.mark.zoo
@pytest.mark.parametrize("kind", ["photographs", "noise"])
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_100", "regnetx_002", "repvgg_a0", "ghostnet_100"]
)
def test_networks_are_far_from_the_rule(name, kind):
    import timm

    net = timm.create_model(name).train()
    x = _photographs(24) if kind == "photographs" else torch.randn(24, 3, 96, 96)

    found = observe_data(Subject(net, None, None, None, CheckupPlan()), x)
    assert max(max(call.inputs.axis_shares[1:], default=0.0) for call in found.norms) < 0.05
    assert list(wrong_axis(found)) == []
    assert list(padding_in_statistics(found)) == []


def test_rough_rows_behind_a_convolution_or_of_pictures_are_positions():
    rows = 2 * torch.randn(1, 1, 32, 1)
    x = torch.randn(64, 1, 32, 40) + rows
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm2d(4)).train()
    with torch.no_grad():
        net[0].weight.abs_()
    found = _observed(net, x)
    (call,) = found.norms
    assert call.inputs.axis_shares[1] > 0.15 > 4 * call.inputs.axis_shares[0]  # what would alarm
    assert list(wrong_axis(found)) == []
    found = _observed(
        nn.Sequential(nn.BatchNorm2d(3)).train(), 0.5 * x.expand(-1, 3, -1, -1) + torch.randn(3, 1, 1)
    )
    assert list(wrong_axis(found)) == []


class _Tokens(nn.Module):
    """Patches by a convolution; then channels last, in a batch norm that takes them for positions."""

    def __init__(self):
        super().__init__()
        self.patches, self.bn = nn.Conv2d(3, 16, 4, 4), nn.BatchNorm1d(16)

    def forward(self, x):
        return self.bn(self.patches(x).flatten(2).transpose(1, 2))


def test_axes_moved_behind_a_convolution_may_be_wrong():
    net = _Tokens().train()
    with torch.no_grad():
        net.patches.bias.copy_(3 * torch.randn(16))
    assert [finding.address for finding in wrong_axis(_observed(net, torch.randn(32, 3, 16, 16)))] == ["bn#1"]


def _observed(net, x):
    return observe_data(Subject(net, None, None, None, CheckupPlan()), x)
