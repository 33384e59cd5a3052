"""The stem's diagnosis on gratings and networks whose answer is known."""

import math

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.sight import stem
from convscope.sight.spectrum import energies


def grating(frequency_y, frequency_x, size=(96, 80)):
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    return torch.cos(2 * math.pi * (frequency_y * y + frequency_x * x)).expand(1, 1, *size)


def identity(stride):
    net = nn.Sequential(nn.Conv2d(1, 1, 1, stride=stride, bias=False), nn.ReLU()).double()
    nn.init.ones_(net[0].weight)
    return net


@pytest.mark.parametrize(
    ("stride", "wave", "share"),
    [
        (4, (0.0, 0.20), 1.0), (4, (0.20, 0.0), 1.0), (4, (0.05, 0.05), 0.0), (4, (0.0, 0.05), 0.0),
        (2, (0.0, 0.20), 0.0), (2, (0.0, 0.40), 1.0), (2, (0.40, 0.1), 1.0),
        (1, (0.45, 0.45), 0.0), ((1, 4), (0.40, 0.05), 0.0), ((1, 4), (0.05, 0.40), 1.0),
    ],
)  # fmt: skip
def test_pure_gratings_are_aliased_or_not(stride, wave, share):
    assert stem(identity(stride), grating(*wave)).aliased_share == pytest.approx(share, abs=2e-3)


def test_a_sum_of_two_gratings_has_the_share_of_their_energies():
    image = 3 * grating(0.0, 0.05) + 1 * grating(0.2, 0.0)
    assert stem(identity(4), image).aliased_share == pytest.approx(1 / 10, abs=2e-3)


def test_a_constant_does_not_count():
    assert stem(identity(4), 100 + grating(0.0, 0.2)).aliased_share == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("size", [(12, 9), (9, 12), (8, 8), (7, 11)])
def test_energies_equal_a_discrete_fourier_transform_by_definition(size):
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    total, beyond = energies(maps, ((2, 3), (1, 1)))
    height, width = size

    def hann(n):
        return torch.tensor([0.5 - 0.5 * math.cos(2 * math.pi * i / (n - 1)) for i in range(n)]).double()

    windowed = (maps - maps.mean((2, 3), keepdim=True)) * hann(height)[:, None] * hann(width)

    def transform(n):
        k = torch.arange(n, dtype=torch.float64)
        return torch.exp(-2j * math.pi * k[:, None] * k / n)

    spectrum = transform(height) @ windowed.to(torch.complex128) @ transform(width).T
    power = spectrum.abs().square().sum(0)
    fy = torch.tensor([min(k, height - k) / height for k in range(height)])
    fx = torch.tensor([min(k, width - k) / width for k in range(width)])
    outside = (fy[:, None] > 1 / 4) | (fx > 1 / 6)
    torch.testing.assert_close(total, power.sum((1, 2)), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(beyond[0], (power * outside).sum((1, 2)), rtol=1e-6, atol=1e-9)
    assert not beyond[1].any()


def pink(count, size, generator):
    """Noise with the amplitude spectrum 1/f, as natural images have it."""
    fy, fx = torch.fft.fftfreq(size)[:, None], torch.fft.fftfreq(size)
    radius = (fy.square() + fx.square()).sqrt().clamp(min=1 / size)
    white = torch.fft.fft2(torch.randn(count, 3, size, size, generator=generator))
    return torch.fft.ifft2(white / radius).real


def test_random_filters_of_alexnet_and_zfnet_are_told_apart():
    """Random 11×11 filters with stride 4 lose about 0.4 on 1/f images, 7×7 with stride 2 about 0.14."""
    images = pink(8, 128, torch.Generator().manual_seed(0))
    alex = stem(nn.Sequential(nn.Conv2d(3, 32, 11, stride=4), nn.ReLU()), images)
    zf = stem(nn.Sequential(nn.Conv2d(3, 32, 7, stride=2), nn.ReLU()), images)
    assert alex.aliased_share == pytest.approx(0.40, abs=0.08)
    assert zf.aliased_share == pytest.approx(0.14, abs=0.05)
    assert "aliased-stem" in {finding.fault for finding in alex.findings}
    assert "aliased-stem" not in {finding.fault for finding in zf.findings}
    assert [what.stride for what in alex.what_if] == [(1, 1), (2, 2), (4, 4)]
    assert alex.what_if[0].aliased_share == 0
    assert alex.what_if[2].aliased_share == alex.aliased_share
    assert alex.what_if[1].aliased_share < alex.aliased_share


def test_dead_weak_and_dominant_filters_are_found():
    net = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(6, 1, 3, 3))
        net[0].weight /= net[0].weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        net[0].weight[4] *= 10
        net[0].weight[5] *= 0.01
        net[1].bias.copy_(torch.tensor([0.0, -1e6, 0.0, 0.0, 0.0, 1.0]))
    found = stem(net, torch.randn(5, 1, 12, 12))
    assert [kernel.dead for kernel in found.filters] == [False, True, False, False, False, False]
    assert found.filters[4].weight_rms == pytest.approx(10, rel=1e-6)
    assert found.filters[4].dominance == pytest.approx(10, rel=1e-6)
    assert found.filters[5].dominance == pytest.approx(0.01, rel=1e-6)
    assert {f.fault for f in found.findings} == {"dead-filters", "dominant-filters", "weak-filters"}
    assert (found.name, found.unit_address) == ("0", "2#1:relu.1")


def test_the_grid_shows_every_filter_with_its_own_scale():
    net = nn.Sequential(nn.Conv2d(3, 5, (3, 2), bias=False))
    found = stem(net, torch.randn(2, 3, 9, 9))
    assert found.grid.shape == (2 * 3 + 1, 3 * 2 + 2, 3)
    kernel = net[0].weight[4].detach()
    expected = 0.5 + kernel / (2 * kernel.abs().max())
    torch.testing.assert_close(found.grid[4:7, 3:5], expected.permute(1, 2, 0))
    assert (found.grid[4:7, 6:8] == 1).all()
    assert "grid" not in found.to_dict()


def test_a_silent_filter_has_no_share_and_json_says_null():
    net = identity(2)
    nn.init.zeros_(net[0].weight)
    found = stem(net, grating(0.1, 0.2))
    assert found.aliased_share is None
    assert found.to_dict()["filters"][0]["aliased_share"] is None


def test_string_padding_groups_and_dilation_work():
    net = nn.Conv2d(4, 6, 3, padding="same", groups=2, dilation=2)
    found = stem(net, torch.randn(3, 4, 14, 11))
    assert found.aliased_share == 0
    assert found.num_images == found.num_spectra == 3


def test_networks_without_a_convolution_are_refused():
    with pytest.raises(ConvscopeError, match="without convolutions"):
        stem(nn.Flatten(), torch.randn(2, 3, 9, 9))
