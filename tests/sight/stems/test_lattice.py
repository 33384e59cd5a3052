"""Lattice peaks: planted ones are found, smooth and ridged spectra have none."""

import pytest
import torch
import torch.nn.functional as F

from convscope.sight.stems.lattice import lattice_peaks


def pink(count, size, seed=0):
    """Noise with the amplitude spectrum 1/f and ridges along the axes, as photographs of buildings have."""
    generator = torch.Generator().manual_seed(seed)
    fy, fx = torch.fft.fftfreq(size[0])[:, None], torch.fft.fftfreq(size[1])
    radius = (fy.square() + fx.square()).sqrt().clamp(min=1 / max(size))
    ridges = 1 + 4 * ((fy == 0) | (fx == 0))
    white = torch.fft.fft2(torch.randn(count, 3, *size, generator=generator))
    return torch.fft.ifft2(white * ridges / radius).real


@pytest.mark.parametrize("seed", range(4))
def test_blurred_and_plain_images_have_no_lattice(seed):
    images = pink(4, (64, 56), seed)
    row = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    kernel = torch.outer(row, row).expand(3, 1, 5, 5)
    for maps in (images, F.conv2d(images, kernel, groups=3)):
        found = lattice_peaks(maps, (4, 4))
        assert not (found.ratio > 2 and found.p_value <= 0.01)


@pytest.mark.parametrize("period", [(4, 4), (1, 4), (4, 1), (2, 2), (8, 4)])
def test_a_planted_lattice_is_found_at_its_period(period):
    images = pink(4, (66, 57))
    y, x = (torch.arange(length) for length in images.shape[2:])
    grid = (y % period[0] == 0)[:, None] & (x % period[1] == 0)
    found = lattice_peaks(images + images.std() * grid, period)
    assert found.ratio > 2
    assert found.p_value <= 0.01


def test_another_period_is_not_found():
    images = pink(4, (60, 60))
    grid = (torch.arange(60) % 5 == 0)[:, None] & (torch.arange(60) % 5 == 0)
    planted = images + images.std() * grid
    assert lattice_peaks(planted, (5, 5)).ratio > 2
    other = lattice_peaks(planted, (3, 3))
    assert not (other.ratio > 2 and other.p_value <= 0.01)


def test_the_ratio_is_the_energy_over_the_median_of_the_ring():
    maps = torch.randn(2, 3, 20, 15, dtype=torch.float64)
    found = lattice_peaks(maps, (4, 1), windowed=False)
    centred = maps - maps.mean((2, 3), keepdim=True)
    power = torch.fft.fft2(centred).abs().square().flatten(0, 1)
    power = (power / power.sum((1, 2), keepdim=True)).mean(0)
    ratios = []
    for row in (5, 10):  # multiples of 1/4 along y, one of each mirrored pair; x only at 0
        ring = sorted(
            power[(row + dy) % 20, dx % 15]
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if max(abs(dy), abs(dx)) == 2
        )
        ratios.append(float(power[row, 0] / ring[7]))
    assert found.ratio == pytest.approx((ratios[0] * ratios[1]) ** 0.5)


def test_false_alarms_are_as_rare_as_the_p_value_says():
    p_values = [
        lattice_peaks(torch.randn(2, 4, 40, 40, generator=torch.Generator().manual_seed(s)), (4, 4)).p_value
        for s in range(60)
    ]
    assert sum(p <= 0.05 for p in p_values) <= 8
    assert sum(p <= 0.5 for p in p_values) >= 15


@pytest.mark.parametrize(
    ("size", "period", "reason"),
    [((40, 40), (1, 1), "no stride"), ((15, 40), (4, 4), "too small"), ((4, 60), (1, 4), "too small")],
)
def test_what_cannot_be_had_has_a_reason(size, period, reason):
    found = lattice_peaks(torch.randn(1, 2, *size), period)
    assert found.ratio is found.p_value is None
    assert reason in found.reason
    assert lattice_peaks(torch.ones(1, 1, 40, 40), (2, 2)).reason == "no energy"
