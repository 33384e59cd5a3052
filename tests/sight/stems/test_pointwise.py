"""The operators between a convolution and its units: subsampling commutes with them."""

import pytest
import torch
from torch import nn

from convscope.probe import probing
from convscope.sight.stems.pointwise import chain_of
from convscope.sight.units.maps import units_of
from convscope.tape import record


class Scaled(nn.Module):
    """Layer scale, a shift from the left, and a functional activation."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x):
        return torch.nn.functional.leaky_relu_(0.3 + self.scale * x, 0.2)


def trained_norm():
    norm = nn.BatchNorm2d(6)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.2, 3)
    return norm


BEHIND = {
    "relu": [nn.ReLU(inplace=True)],
    "batch norm": [trained_norm(), nn.ReLU()],
    "norm without affine": [nn.BatchNorm2d(6, affine=False), nn.Hardswish(inplace=True)],
    "prelu": [trained_norm(), nn.PReLU(6)],
    "gelu": [nn.GELU()],
    "scaled": [Scaled()],
    "relu6": [trained_norm(), nn.ReLU6()],
}


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("bias", [True, False])
def test_the_activated_dense_map_holds_the_networks_own(name, bias):
    net = nn.Sequential(nn.Conv2d(3, 6, 5, 2, bias=bias), *BEHIND[name]).double().eval()
    if name == "prelu":
        nn.init.uniform_(net[2].weight, -0.5, 0.5)
    images = torch.randn(2, 3, 21, 18).double()
    tape = record(net, images)
    (units,), _ = units_of(tape)
    chain = chain_of(tape, tape.find(units.address), units.value)
    with torch.no_grad(), probing(net) as probe:
        chain.watch(probe)
        expected = net(images)
        pointwise = chain.pointwise()
        dense = nn.functional.conv2d(images, net[0].weight)
        for channels in (slice(0, 6), slice(2, 5)):
            found = pointwise.activated(dense[:, channels].clone(), channels)[:, :, ::2, ::2]
            torch.testing.assert_close(found, expected[:, channels])


def test_the_scale_is_gamma_over_the_deviation():
    norm = trained_norm()
    net = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU()).eval()
    tape = record(net, (2, 3, 9, 9))
    (units,), _ = units_of(tape)
    chain = chain_of(tape, tape.find(units.address), units.value)
    with torch.no_grad(), probing(net) as probe:
        chain.watch(probe)
        net(torch.zeros(1, 3, 9, 9))
    expected = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    torch.testing.assert_close(chain.pointwise().scale, expected)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 6), nn.BatchNorm2d(6, track_running_stats=False)])
def test_statistics_of_the_images_are_not_value_by_value(norm):
    net = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU()).eval()
    tape = record(net, (2, 3, 9, 9))
    (units,), _ = units_of(tape)
    chain = chain_of(tape, tape.find(units.address), units.value)
    with torch.no_grad(), probing(net) as probe:
        chain.watch(probe)
        net(torch.zeros(1, 3, 9, 9))
    assert chain.pointwise() is None
