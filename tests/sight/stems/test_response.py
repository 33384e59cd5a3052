"""Frequency responses of filters against explicit sums, and closed forms of Gabor filters."""

import math

import pytest
import torch

from convscope.sight.stems.coverage import gabor
from convscope.sight.stems.response import RINGS, responses, share_beyond


def by_sums(weight, points, dilation=(1, 1)):
    """|W|² (o, points, points) at the midpoints of a fine grid over ±0.5, and the grid."""
    f = (torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5
    height, width = weight.shape[2:]
    down, across = (
        torch.exp(-2j * math.pi * f[:, None] * torch.arange(n, dtype=torch.float64) * d)
        for n, d in zip((height, width), dilation)
    )
    answer = torch.einsum("ochw,yh,xw->ocyx", weight.to(torch.complex128), down, across)
    return answer.abs().square().sum(1), f


@pytest.mark.parametrize(
    ("size", "stride", "dilation"),
    [((5, 3), (2, 2), (1, 1)), ((3, 4), (3, 1), (1, 1)), ((7, 7), (2, 4), (1, 1)), ((3, 2), (2, 3), (2, 3))],
)
def test_the_share_beyond_nyquist_is_the_integral(size, stride, dilation):
    weight = torch.randn(3, 2, *size, dtype=torch.float64)
    # 1/(2s) lies between two points of the grid for 240 points, and the midpoint rule is exact for these
    # trigonometric polynomials only over the whole period, hence the tolerance.
    power, f = by_sums(weight, 960, dilation)
    inside = (f.abs() < 0.5 / stride[0])[:, None] & (f.abs() < 0.5 / stride[1])
    expected = 1 - (power * inside).sum((1, 2)) / power.sum((1, 2))
    torch.testing.assert_close(share_beyond(weight, stride, dilation), expected, rtol=0, atol=2e-5)


def test_a_single_weight_passes_everything():
    weight = torch.ones(1, 1, 1, 1)
    assert share_beyond(weight, (1, 1)).item() == pytest.approx(0, abs=1e-12)
    assert share_beyond(weight, (2, 3)).item() == pytest.approx(1 - 1 / 6)


def test_filters_of_zeros_have_none():
    found = responses(torch.zeros(2, 3, 5, 5))
    assert found.peak.isnan().all()
    assert found.bandwidth.isnan().all()
    assert share_beyond(torch.zeros(1, 1, 3, 3), (2, 2)).isnan().all()


@pytest.mark.parametrize("frequency", [0.12, 0.2, 0.3])
@pytest.mark.parametrize("turn", [0.0, 0.4, math.pi / 2, 2.5])
@pytest.mark.parametrize("octaves", [0.5, 1.0])
def test_a_gabor_has_its_frequency_and_bandwidth(frequency, turn, octaves):
    """Its power is exp(−(2πσ)² |f − f₀|²): half of the peak's at σ's two frequencies."""
    weight = gabor(frequency, turn, math.pi / 2, (95, 93), octaves)
    found = responses(weight[None, None])
    assert found.peak.item() == pytest.approx(frequency, abs=1 / 200)
    assert found.bandwidth.item() == pytest.approx(octaves, abs=0.03)
    along_y, along_x = found.peak_axes[0].tolist()
    assert along_y == pytest.approx(abs(math.sin(turn)) * frequency, abs=1 / 200)
    assert along_x == pytest.approx(abs(math.cos(turn)) * frequency, abs=1 / 200)


def test_rings_hold_what_lies_in_them():
    weight = torch.randn(4, 1, 6, 9, dtype=torch.float64)
    found = responses(weight)
    assert found.opponent is None
    torch.testing.assert_close(found.radial.sum(1), torch.ones(4, dtype=torch.float64))
    power, f = by_sums(weight, 960)
    radius = torch.hypot(f[:, None], f.expand(960, 960))
    for ring in (0, 3, 9, RINGS):
        edges = (ring / (2 * RINGS), (ring + 1) / (2 * RINGS) if ring < RINGS else 1.0)
        inside = (radius > edges[0]) & (radius <= edges[1])
        expected = (power * inside).sum((1, 2)) / power.sum((1, 2))
        torch.testing.assert_close(found.radial[:, ring], expected, rtol=0, atol=0.01)


def test_grey_and_colour_are_told_apart():
    shape = torch.randn(5, 7, dtype=torch.float64)
    grey, red_green = (
        torch.stack([weight * shape for weight in weights]) for weights in ((1.0, 1.0, 1.0), (1.0, -1.0, 0.0))
    )
    found = responses(torch.stack([grey, red_green, grey + red_green]))
    luminance, opponent = found.luminance.sum(1), found.opponent.sum(1)
    torch.testing.assert_close(luminance, torch.tensor([1, 0, 0.6]).double())
    torch.testing.assert_close(opponent, torch.tensor([0, 1, 0.4]).double())
    assert responses(torch.randn(2, 4, 3, 3)).opponent is None


def test_a_box_is_a_low_pass_and_a_checkerboard_peaks_at_the_corner():
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(3, 3)
    found = responses(torch.stack([torch.ones(6, 6), checks])[:, None])
    assert found.peak.tolist() == pytest.approx([0, math.sqrt(0.5)])
    assert found.bandwidth[0].isnan()
    assert found.bandwidth[1].isfinite()


def test_large_banks_go_in_parts():
    weight = torch.randn(70, 2, 3, 3)
    whole, parts = responses(weight), [responses(weight[i : i + 1]) for i in (0, 33, 69)]
    for index, part in zip((0, 33, 69), parts):
        torch.testing.assert_close(whole.radial[index], part.radial[0])
        assert whole.peak[index] == part.peak[0]
