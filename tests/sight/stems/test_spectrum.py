"""Energies by frequency against discrete Fourier transforms by definition and closed forms."""

import math

import pytest
import torch

from convscope.sight.stems.spectrum import energies, is_resolved, power


def hann(length):
    return torch.tensor(
        [0.5 - 0.5 * math.cos(2 * math.pi * i / (length - 1)) for i in range(length)], dtype=torch.float64
    )


def by_definition(maps):
    """|DFT|² (o, h, w) of windowed maps, and |f| of the rows and columns, from explicit sums."""
    height, width = maps.shape[2:]
    windowed = (maps - maps.mean((2, 3), keepdim=True)) * hann(height)[:, None] * hann(width)

    def transform(n):
        k = torch.arange(n, dtype=torch.float64)
        return torch.exp(-2j * math.pi * k[:, None] * k / n)

    spectrum = transform(height) @ windowed.to(torch.complex128) @ transform(width).T
    axes = [torch.tensor([min(k, n - k) / n for k in range(n)], dtype=torch.float64) for n in (height, width)]
    return spectrum.abs().square().sum(0), *axes


@pytest.mark.parametrize("size", [(12, 9), (9, 12), (8, 8), (7, 11)])
def test_energies_equal_a_discrete_fourier_transform_by_definition(size):
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    total, beyond = energies(maps, ((2, 3), (1, 1)))
    spectrum, fy, fx = by_definition(maps)
    outside = (fy[:, None] > 1 / 4 + 1e-9) | (fx > 1 / 6 + 1e-9)
    torch.testing.assert_close(total, spectrum.sum((1, 2)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(beyond[0], (spectrum * outside).sum((1, 2)), rtol=1e-9, atol=1e-9)
    assert not beyond[1].any()


@pytest.mark.parametrize(
    ("stride", "taps"), [(2, [1, 2, 1]), (3, [1, 4, 6, 4, 1]), (4, [1, 6, 15, 20, 15, 6, 1])]
)
def test_the_blur_is_the_binomial_filter_that_is_recommended(stride, taps):
    maps = torch.randn(1, 2, 16, 10, dtype=torch.float64)
    spectrum, fy, fx = by_definition(maps)

    def answer(frequencies):
        lags = torch.arange(len(taps), dtype=torch.float64)
        weights = torch.tensor(taps, dtype=torch.float64) / sum(taps)
        waves = torch.exp(-2j * math.pi * frequencies[:, None] * lags)
        return (waves * weights).sum(1).abs().square()

    expected = (spectrum * answer(fy)[:, None]).sum((1, 2))
    torch.testing.assert_close(power(maps).blurred((stride, 1)).total(), expected, rtol=1e-9, atol=1e-12)
    expected = (spectrum * answer(fx)).sum((1, 2))
    torch.testing.assert_close(power(maps).blurred((1, stride)).total(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_constant_has_no_energy_whatever_its_rounding(dtype):
    maps = (torch.full((1, 1, 13, 17), 0.1, dtype=dtype)) * torch.tensor(3.7, dtype=dtype)
    assert power(maps).total().item() == 0


def test_small_energy_on_a_large_mean_counts():
    wave = torch.cos(2 * math.pi * 0.4 * torch.arange(64.0)).expand(1, 1, 64, 64)
    found = power(1 + 1e-4 * wave)
    assert float(found.beyond((1, 2)) / found.total()) == pytest.approx(1, abs=1e-3)


def test_a_small_map_has_no_room_for_the_window():
    assert not is_resolved((16, 15), (4, 4))
    assert is_resolved((16, 16), (4, 4))
    assert is_resolved((3, 16), (1, 4))
    # Why: a wave well below the Nyquist frequency of stride 2 leaks over it in a map of 7, not in one of 16.
    for length, leaks in ((7, True), (16, False)):
        wave = torch.cos(2 * math.pi * 0.1 * torch.arange(float(length)) + 0.5).expand(1, 1, 16, length)
        total, beyond = energies(wave, ((1, 2),))
        assert (float(beyond / total) > 0.01) == leaks
